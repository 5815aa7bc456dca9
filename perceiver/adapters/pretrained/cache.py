"""Tokens of a frozen encoder, computed once for each input and kept in memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from hashlib import blake2b

import torch
from torch import Tensor

Encode = Callable[[Sequence[Tensor]], list[Tensor]]


class TokenCache:
    """Maps an input to its tokens, by a hash of the input's numbers.

    The key is the input itself, not the name of an example: an input that augmentation has changed
    is another one, and an old answer is never given for it. What does not fit any more is computed
    every time; nothing is thrown out, since an epoch that is longer than the cache would otherwise
    find nothing at all.

    Args:
        max_bytes: of all tokens together.
        half: keep floats of 32 bits in 16. Tokens that were just computed are rounded as well, so
            that an epoch sees what the next one sees.
    """

    def __init__(self, *, max_bytes: int, half: bool = False) -> None:
        self.max_bytes, self.half = max_bytes, half
        self.hits = self.misses = self.num_bytes = 0
        self._tokens: dict[bytes, Tensor] = {}

    def __len__(self) -> int:
        return len(self._tokens)

    def clear(self) -> None:
        """Forget everything, because the encoder has changed."""
        self._tokens.clear()
        self.num_bytes = 0

    def through(self, encode: Encode, inputs: Sequence[Tensor]) -> list[Tensor]:
        """What `encode` gives of the inputs, computed for those alone that are not here."""
        keys = [_key(values) for values in inputs]
        missing = {
            key: values for key, values in zip(keys, inputs, strict=True) if key not in self._tokens
        }
        self.misses += len(missing)
        self.hits += len(keys) - len(missing)
        new = {}
        if missing:
            for key, tokens in zip(missing, encode(list(missing.values())), strict=True):
                new[key] = self._rounded(tokens)
                self._keep(key, new[key])
        device = inputs[0].device if inputs else None
        found = [new[key] if key in new else self._tokens[key].to(device) for key in keys]
        return [tokens.float() if self.half else tokens for tokens in found]

    def _rounded(self, tokens: Tensor) -> Tensor:
        return tokens.half() if self.half and tokens.dtype == torch.float32 else tokens

    def _keep(self, key: bytes, tokens: Tensor) -> None:
        num_bytes = tokens.numel() * tokens.element_size()
        if self.num_bytes + num_bytes > self.max_bytes:
            return
        # A validation runs in inference mode, whose tensors training could not use.
        with torch.inference_mode(False):
            self._tokens[key] = torch.empty(tokens.shape, dtype=tokens.dtype).copy_(tokens)
        self.num_bytes += num_bytes


def _key(values: Tensor) -> bytes:
    """Of the numbers, their type and shape, and of the precision that they are computed in."""
    device = values.device.type
    precision = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None
    raw = values.detach().cpu().contiguous().flatten().view(torch.uint8)
    about = f"{values.dtype} {tuple(values.shape)} {precision}".encode()
    return blake2b(raw.numpy().tobytes(), digest_size=16, key=about[:64]).digest()
