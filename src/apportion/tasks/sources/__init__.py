"""The sources of tasks by name, imported on first use; one file a kind of source."""

from __future__ import annotations

from apportion._registry import Registry
from apportion.tasks.sources._source import Source

SOURCES: Registry[Source] = Registry(
    "tasks.source",
    "apportion.tasks.sources._source:Source",
    {
        "csv": "apportion.tasks.sources.files:Csv",
        "files": "apportion.tasks.sources.files:Files",
        "hub": "apportion.tasks.sources.hub:Hub",
        "jsonl": "apportion.tasks.sources.files:Jsonl",
        "natural_instructions": "apportion.tasks.sources.natural_instructions:NaturalInstructions",
        "parquet": "apportion.tasks.sources.files:Parquet",
        "playground": "apportion.tasks.sources.playground:Playground",
        "scratchpad": "apportion.tasks.sources.scratchpad:Scratchpad",
    },
)

__all__ = ["SOURCES", "Source"]
