"""Text encoders of transformers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from perceiver.adapters.adapter import check_mask
from perceiver.adapters.pretrained.adapter import PretrainedAdapter
from perceiver.adapters.pretrained.hub import find_weights
from perceiver.adapters.pretrained.transformers_model import make_encoder, read_config

# They number the places of a text from behind the id of their padding.
_OFFSET = {
    "camembert",
    "data2vec-text",
    "mpnet",
    "roberta",
    "roberta-prelayernorm",
    "xlm-roberta",
    "xlm-roberta-xl",
}
TYPES = _OFFSET | {
    "albert",
    "bert",
    "deberta",
    "deberta-v2",
    "distilbert",
    "electra",
    "ernie",
    "megatron-bert",
    "mobilebert",
    "modernbert",
    "rembert",
    "roformer",
}


class TransformersTextAdapter(PretrainedAdapter):
    """The last hidden states of a text encoder: one token an id (b, length) of its own tokenizer.

    Args:
        weights: a folder that `save_pretrained` wrote, or a name on the hub; None = random ones.
        architecture: what `describe` gives; None = that of the weights.
        vocab_size: of the tokenizer.
        max_length: the longest sequence that is meant to come.
        **common: of every pretrained adapter.

    Raises:
        FileNotFoundError: for a path where nothing is.
        ValueError: it is no text encoder that is known, or does not fit the texts.
    """

    kind: ClassVar[str] = "text"

    def __init__(
        self,
        *,
        vocab_size: int,
        max_length: int,
        weights: str | None = None,
        architecture: dict[str, Any] | None = None,
        **common: Any,
    ) -> None:
        architecture = architecture or self.describe(name=None, weights=weights)
        source = None if weights is None else find_weights(weights)
        encoder = make_encoder(architecture, source, types=TYPES, what="text")
        config: Any = encoder.config
        longest = getattr(config, "max_position_embeddings", None) or max_length
        offset = (config.pad_token_id or 0) + 1 if config.model_type in _OFFSET else 0
        if longest > 0 and max_length > longest - offset:
            raise ValueError(
                f"the encoder reads texts of {longest - offset} tokens at most, and "
                f"data.text.max_length={max_length}: set data.text.max_length="
                f"{longest - offset}"
            )
        if vocab_size > config.vocab_size:
            raise ValueError(
                f"the encoder knows {config.vocab_size} ids, and the tokenizer gives {vocab_size}: "
                "set data.text.tokenizer to the encoder's own tokenizer.json"
            )
        super().__init__(
            encoder=encoder,
            architecture=architecture,
            content_dim=config.hidden_size,
            shape=[max_length],
            **common,
        )
        self.vocab_size, self.pad = config.vocab_size, config.pad_token_id or 0

    @classmethod
    def describe(cls, *, name: str | None, weights: str | None) -> dict[str, Any]:
        if weights is None:
            raise ValueError(
                "which text encoder of transformers? set model.adapters.text.weights to a folder "
                "or a name on the hub"
            )
        return read_config(find_weights(weights), types=TYPES, what="text")

    def check(self, values: Tensor, mask: Tensor | None) -> None:
        if values.dim() != 2 or values.is_floating_point() or values.dtype == torch.bool:
            raise ValueError(
                f"text has shape {tuple(values.shape)} and type {values.dtype}; "
                "expected integer ids (batch, length)"
            )
        check_mask(mask, values.shape)
        if values.device.type == "cpu" and values.numel() and int(values.max()) >= self.vocab_size:
            raise ValueError(
                f"text holds the id {int(values.max())}, and the encoder knows {self.vocab_size}: "
                "set data.text.tokenizer to the encoder's own tokenizer.json"
            )

    def cut(self, values: Tensor, mask: Tensor) -> Tensor:
        return values[: int(mask.sum())]

    def encode(self, examples: Sequence[Tensor]) -> list[Tensor]:
        lengths = torch.tensor([len(ids) for ids in examples], device=examples[0].device)
        ids = pad_sequence(list(examples), batch_first=True, padding_value=self.pad)
        mask = torch.arange(ids.shape[1], device=ids.device) < lengths[:, None]
        found = self.encoder(input_ids=ids, attention_mask=mask.long()).last_hidden_state
        return [row[:length] for row, length in zip(found, lengths.tolist(), strict=True)]
