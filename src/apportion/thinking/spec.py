"""The recipe's ``thinking`` block: the tags that thinking stands between, and how it is trained on."""

from __future__ import annotations

from pydantic import Field

from apportion.thinking.tags import ThinkingTags


class ThinkingSpec(ThinkingTags):
    """Tags, and ``cuts``: the share of train examples whose thinking is cut at a random place (`tasks.cutting`)."""

    cuts: float = Field(0.0, ge=0.0, le=1.0)
