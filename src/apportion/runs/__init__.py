"""The run folder: what is in it, how it is written so that nothing is ever half there, and how it is read back."""

from apportion.runs.atomic import atomic_write_bytes, atomic_write_text
from apportion.runs.comparison import common_targets, comparison_summary, summarise
from apportion.runs.folder import RunFolder
from apportion.runs.record import RunRecord, in_a_line, is_run, read_answers, read_comparison, read_rollouts, read_run
from apportion.runs.schema import SCHEMA

__all__ = [
    "SCHEMA",
    "RunFolder",
    "RunRecord",
    "atomic_write_bytes",
    "atomic_write_text",
    "common_targets",
    "comparison_summary",
    "in_a_line",
    "is_run",
    "read_answers",
    "read_comparison",
    "read_rollouts",
    "read_run",
    "summarise",
]
