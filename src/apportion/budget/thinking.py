"""How long a request may think, as a type: at most, at least, and how often its end is ignored."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import Field, model_serializer, model_validator

from apportion._config import Config


class ThinkingBudget(Config):
    """Tokens between the tags of thinking, both excluded.

    Attributes:
        most: Where the end is forced; 0 is a budget, and None, written ``all`` where it stands alone, is no limit.
        least: Before so many the end is not allowed: ``wait`` is written in its place.
        ignore: How often the model's own end becomes ``wait``, after ``least``.
    """

    most: int | None = Field(default=None, ge=0)
    least: int = Field(default=0, ge=0)
    ignore: int = Field(default=0, ge=0)

    @model_validator(mode="before")
    @classmethod
    def _short(cls, value: object) -> object:
        if isinstance(value, Mapping | ThinkingBudget):
            return value
        from apportion.budget.inference import read_tokens

        return {"most": None if value == "all" else read_tokens(value, least=0)}

    @model_validator(mode="after")
    def _room(self) -> ThinkingBudget:
        if self.most is not None and self.least > self.most:
            raise ValueError(f"'least' is {self.least}, more than 'most', which is {self.most}")
        return self

    @model_serializer
    def _written(self) -> dict[str, int] | int | str:
        """Return the budget as a person would write it: a number or ``all``, where it is no more than that."""
        if not self.least and not self.ignore:
            return "all" if self.most is None else self.most
        kept = {"most": self.most, "least": self.least, "ignore": self.ignore}
        return {key: value for key, value in kept.items() if value or (key == "most" and value is not None)}

    def __str__(self) -> str:
        said = "all" if self.most is None else str(self.most)
        return (
            said
            + (f", at least {self.least}" if self.least else "")
            + (f", ignore {self.ignore}" if self.ignore else "")
        )
