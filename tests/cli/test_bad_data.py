"""Data that is missing, broken, empty or odd: one sentence that names the place."""

import gzip
import json
import os
import tempfile
from pathlib import Path

import pytest

from tests.cli.command import ask

ROWS = [{"prompt": f"question {i}", "completion": f"answer {i}"} for i in range(30)]


def lines(rows):
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


TASK = {"Definition": ["Say it."], "Categories": ["saying"], "URL": float("nan")}
INSTANCES = [{"id": str(i), "input": f"in {i}", "output": [f"out {i}"]} for i in range(30)]

BROKEN = {
    "x.bin": (os.urandom(64), ["No file of a known kind"]),
    "binary.jsonl": (b"\xff\xfe\x00\x01", ["binary.jsonl:1 is not UTF-8"]),
    "cut.jsonl": (lines(ROWS) + b'{"prompt": ', ["cut.jsonl:31 is not JSON"]),
    "cut.json": (b'{"Definition": "a",\n', ["cut.json:2 is not JSON"]),
    "list.jsonl": (b"[1]\n", ["list.jsonl:1 must be an object with named fields, not list"]),
    "fields.jsonl": (b'{"q": "a", "a": "b"}\n', ["fields.jsonl:1 has the fields q, a", "rename its fields"]),
    "empty.jsonl": (b"", ["Task 'empty'", "is empty"]),
    "blank.jsonl": (b'{"prompt": "a", "completion": " "}\n' * 3, ["Task 'blank'", "only blank completions"]),
    "one.jsonl": (b'{"prompt": "a", "completion": "b"}\n', ["Task 'one' has 1 example", "trained and validated"]),
    "gz.jsonl.gz": (b"not gzip", ["gz.jsonl.gz is not a whole gzip file"]),
    "cut.jsonl.gz": (gzip.compress(lines(ROWS))[:-20], ["cut.jsonl.gz is not a whole gzip file"]),
    "cells.csv": (b"prompt,completion\na,b,c\n", ["cells.csv:2 has not as many cells as the header"]),
    "bad.parquet": (b"PAR1", ["bad.parquet is not a whole Parquet file"]),
    "no.json": (
        b'{"Definition": "a"}',
        ["no.json holds an object with Definition: a .json file must hold a list of rows"],
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_file(capsys, tmp_path, name):
    content, said = BROKEN[name]
    (tmp_path / name).write_bytes(content)
    ask(capsys, "tasks", tmp_path / name).refuses(*said)


@pytest.mark.parametrize("name", ["empty.jsonl", "one.jsonl", "cut.jsonl"])
def test_a_run_on_a_broken_file_leaves_no_folder(capsys, recipe, tmp_path, name):
    content, said = BROKEN[name]
    (tmp_path / name).write_bytes(content)
    change = f"tasks={{path: '{tmp_path / name}'}}"
    ask(capsys, "train", recipe, "--set", change, "--out", tmp_path / "out").refuses(*said)
    assert not (tmp_path / "out").exists()


def test_folders_without_data(capsys, tmp_path):
    ask(capsys, "tasks", tmp_path / "nowhere").refuses("There is no file or folder", "check the path")
    ask(capsys, "tasks", tmp_path).refuses("No file of a known kind")
    (tmp_path / "a.csv").write_text("prompt,completion\na,b\n")
    (tmp_path / "b.json").write_text(json.dumps(TASK | {"Instances": INSTANCES}))
    ask(capsys, "tasks", tmp_path).refuses("a.csv holds rows and", "b.json one JSON object")


def test_bad_rows_stop_or_are_skipped(capsys, tmp_path):
    (tmp_path / "rows.jsonl").write_bytes(lines([*ROWS, {"q": 1}]) + b"nonsense\n")
    ask(capsys, "tasks", tmp_path).refuses("2 bad rows: ", "rows.jsonl:31 has the fields q", "'tasks.on_bad: skip'")
    asked = ask(capsys, "tasks", tmp_path, "--set", "on_bad=skip", "--json")
    assert asked.code == 0 and json.loads(asked.out)["findings"][0].startswith("2 bad rows: ")


def test_several_paths_and_columns_of_other_names(capsys, tmp_path):
    for name, row in (("a", {"q": "x", "completion": "y"}), ("b", {"prompt": "x", "completion": "y"})):
        rows = [{key: f"{value} {i}" for key, value in row.items()} for i in range(20)]
        (tmp_path / f"{name}.jsonl").write_bytes(lines(rows))
    paths = (tmp_path / "b.jsonl", tmp_path / "a.jsonl")
    asked = ask(capsys, "tasks", *paths, "--set", "columns.prompt=q", "--json")
    assert asked.code == 0 and list(json.loads(asked.out)["tasks"]) == ["b", "a"]
    ask(capsys, "tasks", *paths, "--set", "columns.prompt=qq").refuses("'tasks.columns.prompt' is 'qq'", "'q'")
    ask(capsys, "tasks", *paths, "--set", "colums.prompt=q").refuses(
        "Unknown key 'tasks.colums' (did you mean 'columns'?)"
    )


@pytest.fixture
def locked():
    """A folder that the owner of these tests may not read; who may read all becomes nobody meanwhile."""
    with tempfile.TemporaryDirectory() as folder:
        inner = Path(folder, "inner")
        inner.mkdir()
        (inner / "rows.jsonl").write_bytes(lines(ROWS))
        Path(folder, "rows.jsonl").write_bytes(lines(ROWS))
        Path(folder).chmod(0o755)
        root = os.geteuid() == 0
        try:
            if root:
                os.seteuid(65_534)
            yield Path(folder)
        finally:
            if root:
                os.seteuid(0)
            inner.chmod(0o755)


def _chmod(path, mode, name=None):
    """Change the mode, and perhaps the name, as the owner."""
    me = os.geteuid()
    os.seteuid(os.getuid())
    path.chmod(mode)
    path.rename(name or path)
    os.seteuid(me)


@pytest.mark.parametrize("mode", [0o000, 0o444])
def test_a_folder_without_permission(capsys, locked, mode):
    _chmod(locked / "inner", mode)
    for path in (locked, locked / "inner", locked / "inner" / "rows.jsonl"):
        ask(capsys, "tasks", path).refuses(f"Cannot read {locked / 'inner'}", "permission denied")


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.json", "rows.parquet"])
def test_a_file_without_permission(capsys, locked, name):
    file = locked / name
    _chmod(locked / "rows.jsonl", 0o000, file)
    for path in (file, locked):
        ask(capsys, "tasks", path).refuses(f"Cannot read {file}", "permission denied")


def test_two_tasks_of_one_name(capsys, tmp_path):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "same.jsonl").write_bytes(lines(ROWS))
    ask(capsys, "tasks", tmp_path).refuses("Two tasks are called 'same'", "rename one")


def test_completions_too_long_to_keep(capsys, tmp_path):
    # One supervised token, at position 0 of a text: nothing predicts it.
    (tmp_path / "x.jsonl").write_bytes(lines([{"text": letter} for letter in "abcdefgh"]))
    asked = ask(capsys, "tasks", tmp_path / "x.jsonl", "--max-length", "2", "--json")
    assert asked.code == 0  # the end token is supervised too
    assert json.loads(asked.out)["tasks"]["x"]["train"]["supervised"] > 0


def test_bare_nan_is_read(capsys, tmp_path):
    (tmp_path / "nan.json").write_text(json.dumps(TASK | {"Instances": INSTANCES}))
    assert "NaN" in (tmp_path / "nan.json").read_text()
    asked = ask(capsys, "tasks", tmp_path / "nan.json", "--json")
    assert asked.code == 0 and list(json.loads(asked.out)["tasks"]) == ["nan"]


def test_odd_names_and_paths(capsys, recipe, tmp_path):
    folder = tmp_path / "ein Ordner mit Ü & <b>"
    folder.mkdir()
    names = ["a/b & <c> [red]d[/red]", "日本語", "../up"]
    rows = [{"task": name, **row} for name in names for row in ROWS]
    (folder / "rows.jsonl").write_bytes(lines(rows))
    changes = [
        f"tasks={{path: '{folder / 'rows.jsonl'}', task_field: task, max_length: 64}}",
        "model.tokenizer={train: bpe, vocab_size: 300}",
    ]
    sets = [part for change in changes for part in ("--set", change)]
    asked = ask(capsys, "train", recipe, *sets, "--out", folder / "run")
    assert asked.code == 0, asked.err
    mixture = json.loads((folder / "run" / "mixture.json").read_text("utf-8"))
    assert list(mixture["final"]) == names
    page = (folder / "run" / "report.html").read_text("utf-8")
    assert "a/b &amp; &lt;c&gt;" in page and "<c>" not in page
    planned = ask(capsys, "plan", recipe, *sets)
    assert planned.code == 0 and "a/b & <c> [red]d[/red]" in planned.out


def test_a_vocabulary_larger_than_the_data_fills(capsys, recipe, tmp_path):
    (tmp_path / "rows.jsonl").write_bytes(lines(ROWS))
    changes = [f"tasks={{path: '{tmp_path / 'rows.jsonl'}'}}", "model.tokenizer={train: bpe, vocab_size: 5000}"]
    sets = [part for change in changes for part in ("--set", change)]
    assert ask(capsys, "train", recipe, *sets, "--json", "--out", tmp_path / "run").code == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--source", "jsonll"], ["'jsonll' (did you mean 'jsonl'?)"]),
        (["--group-by", "category"], ["Unknown key 'tasks.group_by'"]),
        (["--validation", "2"], ["'--validation' is a share between 0 and 1, not 2"]),
        (["--max-length", "1"], ["'tasks.max_length' is 1"]),
        (["--tokenizer", "/nowhere"], ["There is no folder '/nowhere'"]),
    ],
)
def test_wrong_options_of_tasks(capsys, tmp_path, arguments, said):
    (tmp_path / "rows.jsonl").write_bytes(lines(ROWS))
    ask(capsys, "tasks", tmp_path / "rows.jsonl", *arguments).refuses(*said)
