"""One clear sentence for what a user can mend; the full traceback goes to a file."""

from __future__ import annotations

import difflib
import os
import re
import sys
import traceback
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException, InstantiationException, MissingConfigException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from perceiver.names import shown

# What a library or a data module raises for input that the user can mend. Anything else is a bug
# of ours and keeps its traceback.
USER_ERRORS = (HydraException, OmegaConfBaseException, YAMLError, ValueError, OSError, ImportError)


_LONGEST = 4000  # characters of a sentence
_CONFIG = Path(__file__).parents[1] / "conf"


@contextmanager
def clear_errors(config_dir: Path, config_name: str = "config") -> Iterator[None]:
    """Report a user's error in one sentence and exit with status 1.

    With HYDRA_FULL_ERROR=1 set by the user the traceback is shown instead.
    """
    if os.environ.get("HYDRA_FULL_ERROR") == "1":
        yield
        return
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then raises instead of printing and exiting
    try:
        yield
    except (*USER_ERRORS, MemoryError, RuntimeError) as error:
        if not isinstance(error, USER_ERRORS) and not _of_the_machine(error):
            raise
        said = sentence(error, config_dir, config_name)
        if error in _named:
            said = f"{len(_named)} of the sweep's jobs failed, as said above"
        print(f"error: {shown(said, _LONGEST)}", file=sys.stderr)
        hint = getattr(error, "__notes__", ["HYDRA_FULL_ERROR=1 shows the full traceback"])
        print(f"({shown(hint[-1], _LONGEST)})", file=sys.stderr)
        sys.exit(1)
    finally:
        os.environ.pop("HYDRA_FULL_ERROR", None)


_named: list[BaseException] = []  # what ended jobs of a sweep


@contextmanager
def name_failed_job() -> Iterator[None]:
    """Say at once which job of a sweep failed and why: Hydra goes on with the others."""
    try:
        yield
    except Exception as error:
        if HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN:
            job = HydraConfig.get()
            what = f"job {job.job.num} ({', '.join(job.overrides.task)})"
            said = shown(sentence(error, _CONFIG, "config"), _LONGEST)
            print(f"error: {what}: {said}", file=sys.stderr)
            _named.append(error)
        raise


@contextmanager
def keep_traceback(folder: Path) -> Iterator[None]:
    """Write the traceback of whatever ends the run to `error.log` in its folder."""
    try:
        yield
    except Exception as error:
        path = folder / "error.log"
        try:
            path.write_text("".join(traceback.format_exception(error)), encoding="utf-8")
            error.add_note(f"full traceback: {path}")
        except OSError:
            pass  # the folder cannot be written, which may be the very error
        raise


def sentence(error: BaseException, config_dir: Path, config_name: str) -> str:
    """What went wrong, where, and what to do, on one line."""
    missing = re.search(r"Could not (?:find|load) '([^']+)/([^']+)'", str(error))
    if isinstance(error, MissingConfigException) and missing:
        group, choice = missing.groups()
        known = sorted(path.stem for path in (config_dir / group).glob("*.yaml"))
        near = _nearest(choice, known)
        return f"{group} has no choice {choice!r}{near}; choices: {', '.join(known)}"
    overridden = re.search(r"Could not override '([^']+)'", str(error))
    if overridden is None:
        overridden = re.search(r"Key '([^']+)' is not in struct", str(error))
    if overridden:
        name = overridden.group(1)
        known = known_keys(config_dir, config_name, skip=name)
        # A bare name may be meant for any part of the config.
        leaves = {key.rpartition(".")[2]: key for key in reversed(known)}
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.7) or [
            leaves[leaf]
            for leaf in difflib.get_close_matches(name.rpartition(".")[2], leaves, n=1, cutoff=0.5)
        ]
        hint = f"; did you mean {near[0]!r}?" if near else ""
        return f"the config has no {name!r}{hint} (python train.py --help lists all)"
    if isinstance(error, InstantiationException) and error.__cause__ is not None:
        where = re.search(r"full_key: (\S+)", str(error))
        cause = _one_line(error.__cause__)
        return f"{cause} (in {where.group(1)})" if where else cause
    return _of_the_machine(error) or _one_line(error)


def _of_the_machine(error: BaseException) -> str:
    """What to do where memory or a loader process is at an end; "" for other errors."""
    text = str(error)
    if isinstance(error, MemoryError) or "out of memory" in text or "allocate memory" in text:
        return (
            f"there is no memory left ({_one_line(error)[:200]}): lower data.batch_size, "
            "data.num_workers or the size of the model"
        )
    if re.search(r"DataLoader worker .* (is killed|exited unexpectedly)", text):
        return (
            f"a process that reads data has died ({_one_line(error)[:200]}): the machine may have "
            "no memory left for it; lower data.num_workers, data.prefetch or data.batch_size"
        )
    if "Unable to configure handler" in text:
        return f"the run folder cannot be written: {error.__cause__ or text}"
    return ""


def _one_line(error: BaseException) -> str:
    text = str(error).strip() or type(error).__name__
    if "Original Traceback" in text:  # a DataLoader worker's error carries its whole traceback
        text = re.sub(r"^\w[\w.]*: ", "", text.splitlines()[-1])
    return " ".join(line.strip() for line in text.splitlines() if line.strip())


def _nearest(word: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(word, list(known), n=1, cutoff=0.4)
    return f", did you mean {near[0]!r}?" if near else ""


def known_keys(config_dir: Path, config_name: str, skip: str) -> list[str]:
    """Every key of the config as it would be without the override of `skip`, and every group."""
    from hydra import compose, initialize_config_dir

    overrides = [a for a in sys.argv[1:] if "=" in a and not a.startswith("-")]
    overrides = [a for a in overrides if a.split("=")[0].lstrip("+~") != skip and "hydra" not in a]
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(config_dir), version_base="1.3"):
        try:
            config = compose(config_name, overrides=overrides)
        except (HydraException, OmegaConfBaseException):
            config = compose(config_name)
    groups = [path.name for path in config_dir.iterdir() if path.is_dir()]
    return [*groups, *_flatten(config)]


def _flatten(config: DictConfig, prefix: str = "") -> list[str]:
    keys = []
    for key in config:
        keys.append(f"{prefix}{key}")
        if not OmegaConf.is_missing(config, key):
            child = config._get_node(key)
            if isinstance(child, DictConfig) and not child._is_none():
                keys += _flatten(child, f"{prefix}{key}.")
    return keys
