"""The whole model: adapters → fusion → encoder → decoder."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from perceiver.adapters import Adapter, Fusion, ModalityDropout
from perceiver.models.decoder import Decoder
from perceiver.models.encoder import PerceiverEncoder
from perceiver.shapes import Float
from perceiver.types import ByteArray


class Perceiver(nn.Module):
    """Latents read any number of modalities at once; a decoder turns them into outputs.

    Any example may lack any modality; the answer is then that of a model that never saw it, and
    finite even if nothing is present at all.

    Args:
        adapters: modality → its adapter.
        fusion: makes the fusion from channels=, modality → width of its segment.
        encoder: makes the encoder from input_dim=, cross_attention= and latent_attention=.
        cross_attention: makes the cross-attends' attention from (query_dim, key_dim).
        latent_attention: makes the latents' self-attention likewise.
        decoder: makes the decoder from latent_dim=.
        modality_dropout: drops modalities of single examples in training; None = never.

    Raises:
        ValueError: without adapters, for a dropout rate of a modality that has none, or for
            attention that cannot serve so many tokens and latents.
    """

    def __init__(
        self,
        *,
        adapters: Mapping[str, Adapter],
        fusion: Callable[..., Fusion],
        encoder: Callable[..., PerceiverEncoder],
        cross_attention: Callable[..., nn.Module],
        latent_attention: Callable[..., nn.Module],
        decoder: Callable[..., Decoder],
        modality_dropout: ModalityDropout | None = None,
    ) -> None:
        super().__init__()
        if not adapters:
            raise ValueError("a model needs at least one modality: model.adapters is empty")
        rates = getattr(modality_dropout, "p", None)
        strangers = sorted(set(rates) - set(adapters)) if isinstance(rates, Mapping) else []
        if strangers:
            raise ValueError(
                f"model.modality_dropout.p names {', '.join(strangers)}: the model's modalities "
                f"are {', '.join(sorted(adapters))}"
            )
        self.adapters = nn.ModuleDict(dict(sorted(adapters.items())))
        self.modality_dropout = modality_dropout
        widths = {name: adapter.channels for name, adapter in self.adapters.items()}
        self.fusion = fusion(channels=widths)
        self.encoder = encoder(
            input_dim=self.fusion.channels,
            cross_attention=cross_attention,
            latent_attention=latent_attention,
        )
        self.decoder = decoder(latent_dim=self.encoder.latent_dim)
        self.encoder.check_lengths(sum(adapter.num_tokens for adapter in adapters.values()))
        self.decoder.check_lengths(len(self.encoder.latents))
        tokens = {name: adapter.num_tokens for name, adapter in sorted(adapters.items())}
        self.decoder.check_inputs(tokens, self.fusion.channels)

    @property
    def modalities(self) -> tuple[str, ...]:
        """The modalities that the model can read, sorted."""
        return tuple(self.adapters)

    @property
    def asked(self) -> tuple[str, ...]:
        """The modalities whose elements the decoder answers for one by one."""
        return self.decoder.asked

    def regions(self) -> list[nn.Module]:
        """The parts with the same shapes in every batch: latent blocks, MLPs and decoder.

        They compile well (`compile=true`). Adapters and cross-attentions are left out: their
        lengths change from batch to batch, and the structured kernels are operators that a compiler
        leaves alone.
        """
        return [*self.encoder.regions(), *self.decoder.regions()]

    def byte_array(
        self,
        inputs: Mapping[str, Tensor],
        masks: Mapping[str, Tensor] | None = None,
        present: Mapping[str, Tensor] | None = None,
    ) -> ByteArray:
        """What the latents read of the inputs, absent modalities masked.

        Raises:
            ValueError: for an unknown modality, or none, or inputs of different numbers of
                examples; for masks or flags of an unknown one.
        """
        unknown = sorted(set(inputs) - set(self.adapters))
        if unknown or not inputs:
            what = f"cannot read {', '.join(unknown)}" if unknown else "was given no input at all"
            raise ValueError(f"the model {what}: its modalities are {', '.join(self.modalities)}")
        for what, of in (("masks", masks), ("present", present)):
            strange = sorted(set(of or ()) - set(self.adapters))
            if strange:
                raise ValueError(
                    f"{what} of {', '.join(strange)}: the model's modalities are "
                    f"{', '.join(self.modalities)}"
                )
        sizes = {name: len(values) for name, values in inputs.items()}
        if len(set(sizes.values())) > 1:
            raise ValueError(f"the inputs hold different numbers of examples: {sizes}")
        masks, given = masks or {}, dict(present or {})
        present = given
        # Flags that are all true would mask nothing, yet cost as masks do: none where none is due.
        if self.modality_dropout is not None and self.modality_dropout.may_drop(inputs):
            first = next(iter(inputs.values()))
            everything = torch.ones(len(first), dtype=torch.bool, device=first.device)
            present = self.modality_dropout(
                {name: given.get(name, everything) for name in sorted(inputs)}
            )
        segments = {}
        for name in sorted(inputs):
            adapter = self.adapters[name]
            told = {"present": given.get(name)} if adapter.takes_present else {}
            segment = adapter(inputs[name], masks.get(name), **told)
            segments[name] = segment.keep(present[name]) if name in present else segment
        return self.fusion(segments)

    def forward(
        self,
        inputs: Mapping[str, Tensor],
        masks: Mapping[str, Tensor] | None = None,
        present: Mapping[str, Tensor] | None = None,
    ) -> Float[Tensor, "b o k"] | dict[str, Tensor]:
        """Outputs of a batch, by name of several heads.

        The arguments are fields of `perceiver.types.Batch`.

        Args:
            inputs: modality → raw values (b, …). A modality that is left out is absent everywhere.
            masks: modality → (b, length …) bool, True on elements that are not padding.
            present: modality → (b,) bool, False where an example lacks the modality.
        """
        read = self.byte_array(inputs, masks, present)
        latents = self.encoder(read)
        # Their lengths change from batch to batch: a decoder that needs them not compiles once.
        return self.decoder(latents, read) if self.decoder.asked else self.decoder(latents)
