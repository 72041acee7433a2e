"""What is printed: help that fits 80 columns, one line of JSON, plain lines on a pipe, tables that keep task names whole."""

import json
import re
import subprocess
import sys

import pytest
from rich.console import Console

from apportion.plans import progress
from apportion.tasks import load_tasks, train_tokenizer
from tests.cli.command import ask

COMMANDS = (
    "init",
    "tasks",
    "plan",
    "train",
    "compare",
    "select",
    "evaluate",
    "report",
    "export",
    "hypernet",
    "generate",
    "curve",
    "profile",
    "reinforce",
)


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


def test_a_plan_says_what_the_targets_are_and_what_was_taken_out(capsys, recipe, tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    rows = [{"prompt": f"copy {i}", "completion": str(i)} for i in range(20)]
    held = load_tasks(source="playground")["copy"].train[0].prompt
    rows += [{"prompt": held, "completion": "x"}]
    (tmp_path / "goals.jsonl").write_text("\n".join(map(json.dumps, rows)))
    setting = f"targets={{path: {tmp_path / 'goals.jsonl'}, importance: {{goals: 2}}}}"
    for arguments in (("plan", recipe), ("plan", recipe, "--methods", "uniform,proportional")):
        asked = ask(capsys, *arguments, "--set", setting)
        assert asked.code == 0, asked.err
        lines = asked.out.splitlines()
        assert "Target: goals, importance 2; 10 examples to steer by, 11 to report on, 0 to train on." in lines
        assert "Found: 1 example whose prompt stands in a target: taken out of its task." in lines
        assert "Target:" not in ask(capsys, *arguments).out


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
    assert re.search(r"Validation loss: macro [\d.]+( ± [\d.]+)? \(20 tasks, \d+ examples\), worst task", asked.out)
    assert str(tmp_path / "run" / "report.html") in asked.out


@pytest.mark.parametrize(
    ("targets", "said"),
    [
        (
            "{source: playground, suite: skills, names: [reverse, add2], scale: 0.1, train: 2}",
            r"Target loss [\d.]+ ± [\d.]+ \(reverse [\d.]+, add2 [\d.]+; \d+ to \d+ examples each\), "
            r"other tasks [\d.]+ \(20 tasks, \d+ examples\), worst task [\d.]+\.",
        ),
        (
            "{tasks: {source07: 4}}",
            r"Target loss [\d.]+ ± [\d.]+ \(source07; 2 examples\), other tasks [\d.]+ \(19 tasks, \d+ examples\), ",
        ),
    ],
)
def test_a_run_with_targets_says_their_loss_first_and_counts_no_example_twice(capsys, recipe, tmp_path, targets, said):
    run = tmp_path / "run"
    settings = ("--set", "tasks.suite=quality", "--set", f"targets={targets}", "--set", "budget=1k")
    asked = ask(capsys, "train", recipe, *settings, "--out", run)
    assert asked.code == 0, asked.err
    words = " ".join(asked.out.split())
    assert re.match(said, words)
    final = json.loads((run / "summary.json").read_text())["final"]
    few = [name for name in final["targets"] if final["examples"][name] < 30]
    assert ("So few examples of" in words) == bool(few)
    others = sum(n for task, n in final["examples"].items() if task not in final["targets"])
    assert f" tasks, {others} examples)" in words and f"Target loss {final['target']:.3f} " in words
    lines = asked.err.splitlines()
    assert all(re.search(r"tokens  target [\d.]+ others [\d.]+( loss [\d.]+)?$", line) for line in lines)


def test_a_comparison_toward_targets_ends_in_a_table_of_them(capsys, monkeypatch, recipe, tmp_path):
    monkeypatch.setenv("COLUMNS", "80")
    block = "targets={source: playground, suite: skills, names: [reverse], scale: 0.1, train: 4}"
    arguments = ("--methods", "uniform,upsample,adapt", "--seeds", "0,1", "--out", tmp_path / "c")
    asked = ask(capsys, "compare", recipe, "--set", "tasks.suite=quality", "--set", block, *arguments)
    assert asked.code == 0, asked.err
    table, _, _ = asked.out.partition("Runs:")
    assert "target examples" in table and "others" in table and "FLOPs to" in table and "macro" not in table
    assert max(map(len, table.splitlines())) <= 80
    assert "reverse is measured on" in table and re.search(r"[Tt]oward reverse", table)


def test_a_comparison_ends_in_a_table_within_80_columns(capsys, monkeypatch, recipe, tmp_path):
    monkeypatch.setenv("COLUMNS", "80")
    arguments = ("--methods", "uniform,adapt", "--seeds", "0,1", "--out", tmp_path / "c")
    asked = ask(capsys, "compare", recipe, *arguments)
    table, _, rest = asked.out.partition("Runs:")
    assert "adapt" in table and "uniform" in table and "±" in table and "macro: mean of the tasks' losses" in table
    assert re.search("No gain|Not shown|adapt (reached|ended)", table)
    assert max(map(len, table.splitlines())) <= 80
    assert str(tmp_path / "c" / "report.html") in rest


def test_a_report_of_unequal_runs_says_on_the_terminal_what_differs(capsys, recipe, tmp_path):
    for name, mixture, budget in (("a", "uniform", 500), ("b", "proportional", 700)):
        settings = ("--set", f"mixture={mixture}", "--set", f"budget={budget}")
        assert ask(capsys, "train", recipe, *settings, "--out", tmp_path / name, "--json").code == 0
    asked = ask(capsys, "report", tmp_path / "a", tmp_path / "b", "--out", tmp_path / "both.html")
    said = "500 supervised tokens in uniform, 700 supervised tokens in proportional"
    assert asked.out.startswith(f"No verdict: the runs differ in budget ({said}).")
    assert asked.out.rstrip().endswith(f"Report: {tmp_path / 'both.html'}")


def test_the_playground_as_a_table(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    asked = ask(capsys, "tasks", "playground")
    assert asked.code == 0 and asked.err == ""
    lines = asked.out.splitlines()
    assert lines[0].split() == ["task", "train", "validation", "supervised", "processed"]
    assert [line.split()[0] for line in lines[1:22]] == [
        *(task.name for task in load_tasks(source="playground")),
        "all",
    ]
    assert re.search(r"^Found in the data:\n  11 distinct prompts moved", asked.out, re.MULTILINE)
    assert max(map(len, lines[:22])) <= 80


class TestShow:
    @pytest.fixture
    def data(self, tmp_path):
        file = tmp_path / "rows.jsonl"
        file.write_text("\n".join(json.dumps({"prompt": f"p {i}\x1b[2J", "completion": f"c {i}"}) for i in range(30)))
        return file

    def test_json(self, capsys, data):
        asked = ask(capsys, "tasks", data, "--show", "3", "--json")
        said = json.loads(asked.out)["shown"]
        assert [set(example) for example in said] == [{"task", "id", "segments"}] * 3
        for example in said:
            number = example["id"].removeprefix("rows-")
            assert example["task"] == "rows"
            assert example["segments"] == [[f"p {number}\x1b[2J\n", False], [f"c {number}<eos>", True]]
        assert "shown" not in json.loads(ask(capsys, "tasks", data, "--json").out)

    def test_a_chat_in_a_tokenizers_own_template(self, capsys, tmp_path):
        turns = [
            ("system", "Be brief."),
            ("user", "yes {}?"),
            ("assistant", "yes"),
            ("user", "{}"),
            ("assistant", "yes {}"),
        ]
        rows = [{"messages": [{"role": role, "content": text.format(i)} for role, text in turns]} for i in range(20)]
        (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
        tokenizer = train_tokenizer(load_tasks(tmp_path / "rows.jsonl"), "bpe", 300)
        tokenizer.chat_template = "{% for m in messages %}{{ m.role ~ ': ' ~ m.content ~ eos_token }}{% endfor %}"
        tokenizer.chat_template += "{{ 'assistant: ' if add_generation_prompt }}"
        tokenizer.save_pretrained(tmp_path / "tokenizer")
        asked = ask(
            capsys, "tasks", tmp_path / "rows.jsonl", "--tokenizer", tmp_path / "tokenizer", "--show", "1", "--json"
        )
        (said,) = json.loads(asked.out)["shown"]
        i = said["id"].removeprefix("rows-")
        assert said["segments"] == [
            [f"system: Be brief.<eos>user: yes {i}?<eos>assistant: ", False],
            ["yes<eos>", True],
            [f"user: {i}<eos>assistant: ", False],
            [f"yes {i}<eos>", True],
        ]

    def test_brackets_on_a_pipe(self, capsys, data):
        asked = ask(capsys, "tasks", data, "--show", "1")
        assert re.search(r"^rows, rows-(\d+):\np \1\\x1b\[2J\n\[\[c \1<eos>\]\]\n", asked.out, re.MULTILINE)
        assert "\x1b" not in asked.out

    def test_colour_in_a_terminal(self, capsys, data, monkeypatch):
        monkeypatch.setenv("FORCE_COLOR", "1")
        monkeypatch.setenv("TERM", "xterm-256color")
        assert "\x1b[32mc " in ask(capsys, "tasks", data, "--show", "1").out
        monkeypatch.setenv("NO_COLOR", "1")
        assert "[[c " in ask(capsys, "tasks", data, "--show", "1").out

    def test_a_negative_number(self, capsys, data):
        ask(capsys, "tasks", data, "--show", "-1").refuses("'--show'", "-1")


@pytest.mark.parametrize(
    ("width", "losses"),
    [
        (80, "macro 9.123 worst 9.456"),
        (120, "loss 9.789 macro 9.123 worst 9.456"),
        (80, "target 9.321 others 9.654"),
        (120, "target 9.321 others 9.654 loss 9.789"),
    ],
)
def test_a_bar_keeps_to_one_line(monkeypatch, width, losses):
    targets = {"target": 9.321, "others": 9.654} if "target" in losses else {}
    screen = Console(force_terminal=True, width=width, record=True, file=sys.stderr, legacy_windows=False)
    monkeypatch.setattr(progress, "Console", lambda **_: screen)
    with progress.progress() as shown:
        show = shown.run("proportional, seed 10")
        show(
            {"spent": {"train": {"supervised": 1_234_567}}, "loss": 9.789, "macro": 9.123, "worst": 9.456} | targets,
            0.41,
        )
    drawn = screen.export_text()
    last = drawn[drawn.rindex("proportional") :].splitlines()[0]
    assert "1.23M" in last and losses in last and "100%" in last
    assert len(last.rstrip()) <= width


def test_a_bar_that_never_moved_is_taken_away(monkeypatch, capsys):
    screen = Console(force_terminal=True, width=80, file=sys.stderr, legacy_windows=False)
    monkeypatch.setattr(progress, "Console", lambda **_: screen)
    with pytest.raises(ValueError, match="bad"), progress.progress() as shown:
        shown.run("uniform, seed 0")
        raise ValueError("bad")
    # Moved up and erased: nothing of it is left above the sentence that follows.
    assert capsys.readouterr().err.rstrip("\n").endswith("\x1b[1A\x1b[2K")


def test_counting_with_a_trained_tokenizer_needs_no_torch():
    code = (
        "import sys; sys.argv = ['apportion', 'tasks', 'playground', '--json']\n"
        "from apportion.cli.main import main\n"
        "try: main()\n"
        "except SystemExit as end: print(end.code, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "0 False"


@pytest.mark.parametrize("bare", [[], ["hypernet"]])
def test_a_bare_command_of_commands_is_its_help(capsys, bare):
    asked, helped = ask(capsys, *bare), ask(capsys, *bare, "--help")
    assert (asked.code, asked.err) == (0, "") and asked.out == helped.out
    assert asked.out.startswith("Usage: apportion") and "Commands:" in asked.out
