"""How long a model thinks: its tags, thinking held to a budget while text is generated, and what was written told apart."""

from __future__ import annotations

from typing import TYPE_CHECKING

from apportion._lazy import lazily

if TYPE_CHECKING:
    from apportion.thinking.forcer import ThinkingForcer
    from apportion.thinking.rounds import think_in_rounds
    from apportion.thinking.tags import TagIds, ThinkingTags
    from apportion.thinking.thought import Thought, split

_HOME = {
    "TagIds": "tags",
    "ThinkingForcer": "forcer",
    "ThinkingTags": "tags",
    "Thought": "thought",
    "split": "thought",
    "think_in_rounds": "rounds",
}

__all__ = ["TagIds", "ThinkingForcer", "ThinkingTags", "Thought", "split", "think_in_rounds"]

__getattr__, __dir__ = lazily(__name__, __all__, _HOME)
