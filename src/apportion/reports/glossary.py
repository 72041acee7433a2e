"""What the words of a report mean, said where they are shown."""

from __future__ import annotations

from apportion.reports import words

SHORT = "macro: mean of the tasks' losses; worst: the largest; J: smooth worst case, tau 1"

SHORT_OF_TARGETS = "target: the targets' losses by importance; others: mean of all other tasks"

ACCOUNTS = {
    "train": "the training itself.",
    "validation": "the measurements that this report shows, and the anchors of weights.",
    "meta": "what a method measures to steer by.",
    "proxy": "smaller runs before this one, such as teachers.",
    "select": "scoring examples to keep.",
    "evaluate": "benchmarks, which no budget pays and no arm is compared by.",
    "generate": "answers and instructions that a model writes or reads.",
}
"""The ledger's accounts, in its order."""


def words_of(tasks: int) -> dict[str, str]:
    """Return what each term means, for a collection of so many tasks."""
    return {
        "target": "the mean of the targets’ validation losses, each by its importance.",
        "others": "the mean of the validation losses of the tasks that are no targets.",
        "macro": "the mean of the tasks’ validation losses, each task counting alike.",
        "worst": "the largest of the tasks’ losses.",
        "J": "a smooth worst case, log mean exp of the tasks’ losses (tau = 1): between macro and worst.",
        "n_eff": f"the effective number of tasks, exp of the mixture’s entropy: {words.count(tasks)} if all are drawn "
        "alike, 1 if only one is.",
        "flops": "training, validation and whatever the method measures.",
    }
