"""Hugging Face ``datasets``: a script that draws rows by the mixture, for any trainer that takes a data set."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from apportion.exports._exporter import Exporter, Handed, Kind, Shape, Written

_SCRIPT = '''"""Rows drawn by a static mixture; `mixture()` is a data set, and running this counts what it draws."""

from collections import Counter
from pathlib import Path

from datasets import interleave_datasets, load_dataset

HERE = Path(__file__).parent
SEED = {seed}
ROWS = {rows}
# Task, file, share of the rows drawn.
TASKS = {tasks}


def endless(task, file):
    """Return a task's rows in a random order, over and over."""
    rows = load_dataset("json", data_files=str(HERE / file), split="train")
    rows = rows.add_column("task", [task] * len(rows)).shuffle(seed=SEED)
    return rows.to_iterable_dataset().repeat(None)


def mixture(rows=ROWS):
    """Return so many rows, drawn by the shares; each names its task."""
    streams = [endless(task, file) for task, file, _ in TASKS]
    shares = [share for _, _, share in TASKS]
    return interleave_datasets(streams, probabilities=shares, seed=SEED).take(rows)


if __name__ == "__main__":
    drawn = Counter(row["task"] for row in mixture())
    for task, _, share in TASKS:
        print(f"{{task}}: {{drawn[task]:,}} rows, {{drawn[task] / ROWS:.2%}}, wanted {{share:.2%}}")
'''


class Datasets(Exporter):
    """A script whose `mixture()` interleaves the tasks by their shares of the rows.

    Source: datasets 5.2, ``interleave_datasets``.
    """

    title: ClassVar[str] = "datasets"
    shapes: ClassVar[Mapping[Kind, Shape]] = {
        "text": "text",
        "pairs": "pairs",
        "answers": "messages",
        "chats": "messages",
    }
    exact: ClassVar[bool] = False
    trains: ClassVar[bool] = False

    def write(self, handed: Handed) -> Written:
        """Return ``mixture.py``."""
        shares = normalised([task.draws for task in handed.tasks])
        tasks = "".join(
            f"    ({task.share.name!r}, {task.file!r}, {share!r}),\n"
            for task, share in zip(handed.tasks, shares, strict=True)
        )
        text = _SCRIPT.format(seed=handed.seed, rows=handed.rows, tasks=f"[\n{tasks}]")
        notes = (
            "Rows are drawn by chance: the shares hold on average, and a task's rows begin anew when all were drawn.",
            "It hands out rows and trains nothing: learning rate, lengths, batches and LoRA are for who takes them.",
        )
        return Written({"mixture.py": text}, "python mixture.py", notes)


def normalised(draws: list[int]) -> list[float]:
    """Return shares that sum to one as exactly as floats can, which ``interleave_datasets`` asks for."""
    total = sum(draws)
    shares = [count / total for count in draws[:-1]]
    return [*shares, 1 - sum(shares)]
