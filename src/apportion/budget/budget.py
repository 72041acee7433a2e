"""The budget as a type: one unit, one limit, read from what a person writes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Literal, get_args

from apportion._errors import ApportionError, nearest

Unit = Literal["supervised", "processed", "flops", "generated"]

ACCEPTED = (
    "write a share of the supervised tokens ('5%'), a number of supervised tokens (60000, '60k', '2M', '1.5B'), "
    "'2M processed', '1e17 FLOPs', or a mapping: {supervised: 2M}, {processed: 2M}, {total: 1e17 FLOPs}"
)

_NUMBER = re.compile(
    r"(?P<number>[+-]?(?:\d[\d_]*\.?\d*|\.\d+)(?:e[+-]?\d+)?)\s*(?P<scale>[kmbt%]?)"
    r"(?:\s*(?P<unit>supervised|processed|generated|flops?))?(?:\s*(?P<tokens>tokens))?",
    re.IGNORECASE,
)
_SCALES = {"": Decimal(1), "%": Decimal(1), "k": Decimal(10) ** 3, "m": Decimal(10) ** 6, "b": Decimal(10) ** 9}
_SCALES["t"] = Decimal(10) ** 12
_KEYS: dict[str, Unit] = {
    "supervised": "supervised",
    "processed": "processed",
    "generated": "generated",
    "total": "flops",
}
_LARGEST = Decimal(10) ** 40


@dataclass(frozen=True)
class Budget:
    """What may be spent.

    ``supervised`` and ``processed`` limit the tokens of the train account; ``flops`` limits the FLOPs of all accounts
    together, so that what a method spends on steering comes out of what it can train; ``generated`` limits the tokens that
    reinforcement writes: thinking, answers and what was inserted.

    Raises:
        ApportionError: An unknown unit, or a limit that is not a positive number (a whole one, for tokens).
    """

    unit: Unit
    limit: int | float

    def __post_init__(self) -> None:
        if self.unit not in get_args(Unit):
            raise ApportionError(f"Unknown budget unit '{self.unit}'{nearest(self.unit, get_args(Unit))}.")
        kinds = (int, float) if self.unit == "flops" else (int,)
        if isinstance(self.limit, bool) or not isinstance(self.limit, kinds) or not 0 < self.limit < float("inf"):
            wanted = "number" if self.unit == "flops" else "whole number of tokens"
            raise ApportionError(f"A budget in {self.unit} needs a positive {wanted}, not {self.limit!r}.")

    def __str__(self) -> str:
        return f"{self.limit:.3g} FLOPs" if self.unit == "flops" else f"{self.limit:,} {self.unit} tokens"

    @classmethod
    def parse(cls, spec: str | int | float | Mapping[str, object], supervised_total: int) -> Budget:
        """Read a budget as written in a recipe.

        Args:
            spec: ``"5%"``, ``"2M"``, ``60000``, ``"2M processed"``, ``"1e17 FLOPs"``, ``{"total": "1e17 FLOPs"}``,
                ``{"supervised": "2M"}`` or ``{"processed": "2M"}``. Shares may exceed 100 % (several epochs) and are
                rounded down to whole tokens.
            supervised_total: Supervised tokens in the collection's train splits, of which a share is taken.

        Raises:
            ApportionError: Zero, negative, not a number, of an unknown unit, or less than one token.
        """
        if isinstance(spec, Mapping):
            key, value = _only_item(spec)
            return cls._read(value, _KEYS[key], spec, supervised_total)
        return cls._read(spec, None, spec, supervised_total)

    @classmethod
    def _read(cls, value: object, fixed: Unit | None, spec: object, supervised_total: int) -> Budget:
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            raise _refusal(spec)
        match = _NUMBER.fullmatch(str(value).strip())
        if match is None:
            raise _refusal(spec)
        said = (match["unit"] or "").lower()
        unit: Unit | None = None
        if said:
            unit = "flops" if said.startswith("flop") else _KEYS[said]
        # A bare number under 'total' could be tokens or FLOPs: it must say which.
        if (fixed == "flops" and unit is None) or (fixed and unit and unit != fixed):
            raise _refusal(spec)
        unit = unit or fixed or "supervised"
        if match["tokens"] and unit == "flops":
            raise _refusal(spec)
        amount = Decimal(match["number"].replace("_", "")) * _SCALES[match["scale"].lower()]
        if amount > _LARGEST:
            raise _refusal(spec)
        if match["scale"] == "%":
            amount = _of_total(amount, unit, spec, supervised_total)
        elif unit != "flops" and amount != amount.to_integral_value():
            raise _refusal(spec, "is not a whole number of tokens")
        if amount <= 0:
            raise _refusal(spec, "is not more than zero")
        return cls(unit, float(amount) if unit == "flops" else int(amount))


def _only_item(spec: Mapping[str, object]) -> tuple[str, object]:
    for key in spec:
        if key not in _KEYS:
            raise ApportionError(f"Unknown key 'budget.{key}'{nearest(str(key), _KEYS)}.")
    if len(spec) != 1:
        raise _refusal(dict(spec), "must hold exactly one of supervised, processed, total")
    return next(iter(spec.items()))


def _of_total(percent: Decimal, unit: Unit, spec: object, supervised_total: int) -> Decimal:
    if unit != "supervised":
        raise _refusal(spec, "is a share, and shares are of supervised tokens")
    tokens = (percent * supervised_total / 100).to_integral_value("ROUND_FLOOR")
    if percent > 0 and tokens < 1:
        raise ApportionError(f"The budget {spec!r} of {supervised_total:,} supervised tokens is less than one token.")
    return tokens


def _refusal(spec: object, why: str = "is not a budget") -> ApportionError:
    shown = dict(spec) if isinstance(spec, Mapping) else spec
    return ApportionError(f"The budget {shown!r} {why}: {ACCEPTED}.")
