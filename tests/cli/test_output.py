"""What is printed: help that fits 80 columns, one line of JSON, plain lines on a pipe, tables that keep task names whole."""

import json
import re
import sys

import pytest
from rich.console import Console

from apportion.cli import _progress
from tests.cli.command import ask

COMMANDS = ["tasks", "plan", "train", "compare", "report", "hypernet"]


def test_help_lists_every_command_in_full(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    asked = ask(capsys, "--help")
    assert asked.code == 0 and asked.err == ""
    assert ask(capsys).out == asked.out
    assert all(re.search(rf"^  {command} +[A-Z].*\.$", asked.out, re.MULTILINE) for command in COMMANDS)
    assert "..." not in asked.out.partition("Commands:")[2]


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_a_command_fits_80_columns(capsys, monkeypatch, command):
    monkeypatch.setenv("COLUMNS", "80")
    asked = ask(capsys, command, "--help")
    assert asked.code == 0
    assert max(map(len, asked.out.splitlines())) <= 80


def test_version(capsys):
    assert re.fullmatch(r"\d+\.\d+\.\d+\n", ask(capsys, "--version").out)


def test_json_is_one_line_and_nothing_else(capsys, recipe, tmp_path):
    data = tmp_path / "rows.jsonl"
    data.write_text("".join(json.dumps({"prompt": f"p {i}", "completion": "c"}) + "\n" for i in range(30)))
    run, compared = tmp_path / "run", tmp_path / "compared"
    commands = {
        "fingerprint": ("tasks", data),
        "flops_per_second": ("plan", recipe),
        "final": ("train", recipe, "--set", "training.gradient_checkpointing=true", "--out", run),
        "arms": ("compare", recipe, "--methods", "uniform", "--out", compared),
        "report": ("report", run),
    }
    for key, command in commands.items():
        asked = ask(capsys, *command, "--json")
        assert asked.code == 0 and asked.err == "", command
        assert asked.out.count("\n") == 1 and key in json.loads(asked.out), command
    assert (run / "report.html").is_file() and (compared / "report.html").is_file()


def test_a_pipe_gets_a_few_plain_lines(capsys, recipe, tmp_path):
    asked = ask(capsys, "train", recipe, "--set", "budget=1k", "--out", tmp_path / "run")
    assert asked.code == 0
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f]", asked.err + asked.out)
    lines = asked.err.splitlines()
    assert 2 <= len(lines) <= 11
    assert all(re.match(r"uniform, seed 0: \d+%  [\d.]+k? tokens  ", line) for line in lines)
    assert "Validation loss: macro" in asked.out and str(tmp_path / "run" / "report.html") in asked.out


def test_a_comparison_ends_in_a_table_within_80_columns(capsys, monkeypatch, recipe, tmp_path):
    monkeypatch.setenv("COLUMNS", "80")
    arguments = ("--methods", "uniform,adapt", "--seeds", "0,1", "--out", tmp_path / "c")
    asked = ask(capsys, "compare", recipe, *arguments)
    table, _, rest = asked.out.partition("Runs:")
    assert "adapt" in table and "uniform" in table
    assert max(map(len, table.splitlines())) <= 80
    assert str(tmp_path / "c" / "report.html") in rest


def test_the_playground_as_a_tree(capsys):
    asked = ask(capsys, "tasks", "playground")
    assert asked.code == 0 and asked.err == ""
    assert asked.out.startswith("20 tasks, ") and "── reverse" in asked.out


@pytest.mark.parametrize(
    ("width", "losses"), [(80, "macro 9.123 worst 9.456"), (120, "loss 9.789 macro 9.123 worst 9.456")]
)
def test_a_bar_keeps_to_one_line(monkeypatch, width, losses):
    screen = Console(force_terminal=True, width=width, record=True, file=sys.stderr, legacy_windows=False)
    monkeypatch.setattr(_progress, "Console", lambda **_: screen)
    with _progress.progress() as shown:
        show = shown.run("proportional, seed 10")
        show({"spent": {"train": {"supervised": 1_234_567}}, "loss": 9.789, "macro": 9.123, "worst": 9.456}, 0.41)
    drawn = screen.export_text()
    last = drawn[drawn.rindex("proportional") :].splitlines()[0]
    assert "1.23M" in last and losses in last and "100%" in last
    assert len(last.rstrip()) <= width


def test_a_bar_that_never_moved_is_taken_away(monkeypatch, capsys):
    screen = Console(force_terminal=True, width=80, file=sys.stderr, legacy_windows=False)
    monkeypatch.setattr(_progress, "Console", lambda **_: screen)
    with pytest.raises(ValueError, match="bad"), _progress.progress() as shown:
        shown.run("uniform, seed 0")
        raise ValueError("bad")
    # Moved up and erased: nothing of it is left above the sentence that follows.
    assert capsys.readouterr().err.rstrip("\n").endswith("\x1b[1A\x1b[2K")
