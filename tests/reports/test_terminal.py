"""The table at the end of a comparison."""

import io

import pytest
from rich.console import Console

from apportion.reports import terminal_table
from apportion.runs import summarise
from tests.reports.synthetic import write_comparison, write_run


def printed(summary):
    console = Console(file=io.StringIO(), width=80, color_system=None)
    console.print(terminal_table(summary))
    return console.file.getvalue()


def test_five_arms_fit_eighty_columns_with_nothing_cut(tmp_path):
    arms = ("uniform", "proportional", "temperature", "adapt", "loss")
    write_comparison(tmp_path, arms=arms, seeds=(0, 1))
    summary = summarise(tmp_path)
    text = printed(summary)
    assert max(len(line) for line in text.splitlines()) <= 80
    assert "…" not in text
    for arm in arms:
        assert arm in text
        assert f"{summary['arms'][arm]['final']['macro']['mean']:.3f}" in text
    assert text.index("adapt") < text.index("uniform") < text.index("proportional")
    share = summary["arms"]["adapt"]["tokens_to_best_of"]["temperature"]["macro"]["mean"]
    assert f"{100 * share:.0f} %" in text and "never" in text


@pytest.mark.parametrize("arm", ["adapt", "uniform"])
def test_one_arm_unfinished_or_alone(tmp_path, arm):
    write_run(tmp_path / arm / "seed-0", arm, stop=0.5)
    text = printed(summarise(tmp_path))
    assert arm in text and "1 unfinished" in text


def test_a_name_with_brackets_is_no_style(tmp_path):
    write_run(tmp_path / "[red]x" / "seed-0", "adapt")
    assert "[red]x" in printed(summarise(tmp_path))
