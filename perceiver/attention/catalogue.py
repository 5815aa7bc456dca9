"""The five axes of attention by name: what can be chosen, and how a choice is built."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from functools import reduce
from operator import and_, or_
from typing import Any

from perceiver.attention import heads, normalisers, patterns, positions, scores
from perceiver.attention.heads import Heads
from perceiver.attention.normalisers import Normaliser
from perceiver.attention.normalisers.normaliser import PlainFunction
from perceiver.attention.patterns import Pattern, PatternMaker
from perceiver.attention.positions import Position
from perceiver.attention.registry import build, check_options, choices, nearest
from perceiver.attention.scores import Score

AXES: dict[str, dict[str, Callable[..., Any]]] = {
    "score": choices(Score, scores),
    "position": choices(Position, positions),
    "pattern": choices(PatternMaker, patterns),
    "normaliser": choices(Normaliser, normalisers),
    "heads": choices(Heads, heads),
}
# What a member is given by the attention that it is part of, rather than by options.
_SIZES = {
    "score": frozenset({"query_dim", "key_dim", "num_heads"}),
    "position": frozenset({"query_dim", "value_dim", "num_heads"}),
    "pattern": frozenset({"model_dim"}),
    "normaliser": frozenset({"num_heads"}),
    "heads": frozenset({"query_dim", "key_dim", "out_dim", "num_heads", "qk_dim", "v_dim", "bias"}),
}


def check_all_options(options: Mapping[str, Mapping[str, Any]]) -> None:
    """Raises ValueError for options of an unknown member, or that a member does not have."""
    if not isinstance(options, Mapping):
        raise ValueError(
            f"options={options!r} must name members with their options, as in "
            "{'entmax': {'alpha': 1.3}}"
        )
    known = {name for members in AXES.values() for name in members}
    for name, own in options.items():
        if name not in known:
            raise ValueError(
                f"options are given for {name!r}, which is no member of any axis: "
                f"{nearest(name, known)}choose one of {', '.join(sorted(known))}"
            )
        if own is not None and not isinstance(own, Mapping):
            raise ValueError(
                f"options.{name}={own!r} must name options with their values, or be null"
            )
        for axis, members in AXES.items():
            if name in members:
                check_options(f"{axis}={name}", members[name], own or {}, _SIZES[axis])


def build_member(
    axis: str,
    choice: str | Callable[..., Any],
    options: Mapping[str, Mapping[str, Any]],
    **sizes: Any,
) -> Any:
    """The member of an axis that was chosen; see `registry.build`."""
    return build(axis, choice, AXES[axis], sizes=sizes, options=options)


def build_normaliser(
    choice: str | Callable[..., Any], options: Mapping[str, Mapping[str, Any]], **sizes: Any
) -> Normaliser:
    """A normaliser from a name, a factory, or a plain function (scores, keep) → weights."""
    if inspect.isfunction(choice):
        return PlainFunction(choice)
    member = build_member("normaliser", choice, options, **sizes)
    return member if isinstance(member, Normaliser) else PlainFunction(member)


def check_members(
    *,
    score: Score,
    position: Position,
    pattern: PatternMaker,
    normaliser: Normaliser,
    heads: Heads,
    chosen_score: object,
) -> None:
    """Raises ValueError for members that do not fit each other.

    Args:
        score, position, pattern, normaliser, heads: the members.
        chosen_score: what was given as the score, for the message.
    """
    widths = heads.query_width, heads.key_width
    for axis, part in (("score", score), ("position", position)):
        if part.compares_widths and widths[0] != widths[1]:
            name = getattr(part, "name", "") or type(part).__name__.lower()
            raise ValueError(
                f"{axis}={name} compares queries of width {widths[0]} with keys of "
                f"width {widths[1]}, which must be equal: use score=general or "
                "score=additive without positions, or heads=qkv, which projects both"
            )
    normaliser.check_score(chosen_score, score.is_positive)
    position.check_pattern(pattern)
    if pattern.padding_keys and heads.extra_keys:
        raise ValueError("registers cannot stand beside a pattern that pads with zeros")


def build_pattern(
    choice: str | Pattern | Callable[..., Any],
    options: Mapping[str, Mapping[str, Any]],
    *,
    model_dim: int,
) -> PatternMaker:
    """A pattern from a name, or from names joined by & and |; & binds closer, parentheses closest.

    Raises:
        ValueError: for an unknown name, parentheses that do not match, or `luong_local` combined
            with others.
    """
    if isinstance(choice, Pattern):
        return choice
    if not isinstance(choice, str):
        return build_member("pattern", choice, options, model_dim=model_dim)
    words = re.findall(r"[&|()]|[^&|()\s]+", choice)

    def joined(symbol: str, operand: Callable[[], Any]) -> Any:
        parts = [operand()]
        while words[:1] == [symbol]:
            words.pop(0)
            parts.append(operand())
        if len(parts) > 1 and not all(isinstance(part, Pattern) for part in parts):
            raise ValueError(
                f"pattern={choice!r}: luong_local follows the queries and combines with masks "
                "alone; give the other pattern to forward as mask="
            )
        return reduce(and_ if symbol == "&" else or_, parts)

    def union() -> Any:
        return joined("|", lambda: joined("&", single))

    def single() -> Any:
        if words[:1] == ["("]:
            words.pop(0)
            inner = union()
            if words[:1] != [")"]:
                raise malformed
            words.pop(0)
            return inner
        if not words or words[0] in "&|)":
            raise malformed
        return build_member("pattern", words.pop(0), options, model_dim=model_dim)

    malformed = ValueError(
        f"pattern={choice!r} is not names joined by & and |, in matching parentheses if any, as in "
        "'(window | global) & causal'"
    )
    pattern = union()
    if words:
        raise malformed
    return pattern
