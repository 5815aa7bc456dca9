"""Hugging Face tokenizers, from a file or by their names on the hub."""

from __future__ import annotations

from pathlib import Path

from tokenizers import Tokenizer

_FILE = "tokenizer.json"
_SECONDS = 5  # until the hub counts as out of reach


def open_tokenizer(name: str) -> Tokenizer:
    """A Hugging Face tokenizer: a `tokenizer.json`, a folder with one, or a name on the hub.

    Raises:
        FileNotFoundError: there is no such file, and no such name either.
        ValueError: the file holds no tokenizer.
    """
    path = Path(name)
    if path.is_dir():
        path = path / _FILE
    if not path.is_file():
        path = Path(_from_hub(name))
    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises nothing more precise
        what = (str(error).splitlines() or ["it is damaged"])[0]
        raise ValueError(
            f"data.text.tokenizer={name} is not a Hugging Face {_FILE}: {what}."
        ) from error


def _from_hub(name: str) -> str:
    """The file of a name on the hub, from the disk where it was fetched before."""
    from huggingface_hub import constants, hf_hub_download
    from huggingface_hub.utils import get_session

    refusal = f"data.text.tokenizer={name} is not a file, nor a name"
    if name.endswith(".json") or name.count("/") > 1 or name.startswith((".", "/", "~")):
        raise FileNotFoundError(f"data.text.tokenizer={name} is not a file.")
    try:
        return hf_hub_download(name, _FILE, local_files_only=True)
    except (OSError, ValueError):
        pass
    try:
        if constants.HF_HUB_OFFLINE:
            raise OSError("HF_HUB_OFFLINE is set")
        get_session().head(constants.ENDPOINT, timeout=_SECONDS)  # fetching would ask for long
    except Exception as error:  # of whatever library asks
        raise FileNotFoundError(
            f"{refusal} that was fetched before, and the hub cannot be asked ({error}): name a "
            f"{_FILE} on the disk, or data.text.tokenizer=null for one of the training texts."
        ) from error
    try:
        return hf_hub_download(name, _FILE)
    except (OSError, ValueError) as error:
        what = str(error).splitlines()[0]
        raise FileNotFoundError(f"{refusal} on the hub with a {_FILE}: {what}") from error
