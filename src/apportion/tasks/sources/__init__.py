"""The sources of tasks by name, imported on first use; one file a source."""

from __future__ import annotations

from apportion._registry import Registry
from apportion.tasks.sources._source import Source

SOURCES: Registry[Source] = Registry(
    "tasks.source",
    {
        "natural_instructions": "apportion.tasks.sources.natural_instructions:NaturalInstructions",
        "playground": "apportion.tasks.sources.playground:Playground",
    },
)

__all__ = ["SOURCES", "Source"]
