"""The README of an export: the command, the shares, what the trainer cannot express, and where all of it came from."""

from __future__ import annotations

from collections.abc import Sequence

from apportion.exports._exporter import Exporter, Handed, Written
from apportion.exports.shares import cell, table


def readme(exporter: Exporter, handed: Handed, written: Written, notes: Sequence[str], origin: str, block: str) -> str:
    """Return it as Markdown.

    Args:
        exporter: Of the trainer.
        handed: The run, as it was handed on.
        written: What the exporter made of it.
        notes: What the trainer cannot express, in sentences.
        origin: A paragraph on the run.
        block: The ``fixed`` block of these shares.
    """
    files = "".join(
        f"| {cell(task.share.name)} | `{task.file}` | {task.rows:,} | {task.draws:,} |\n" for task in handed.tasks
    )
    said = "".join(f"- {note}\n" for note in notes)
    return (
        f"# A learnt mixture for {exporter.title}\n\n"
        f"Run in this folder, from which the paths in the config start:\n\n    {written.command}\n\n"
        f"## The mixture\n\n{origin}\n\n{table([task.share for task in handed.tasks])}\n"
        f"| task | file | rows in it | rows drawn |\n| --- | --- | ---: | ---: |\n{files}\n"
        "The files hold what was trained on, in a random order. What the run held out is not in them.\n\n"
        f"## What is not as in the run\n\n{said}\n"
        f"## The same with Apportion\n\nIn the recipe, in place of its `mixture`:\n\n{_indented(block)}"
    )


def _indented(text: str) -> str:
    return "".join(f"    {line}\n" for line in text.splitlines())
