"""Folders that are taken, foreign, finished or no folders at all; nothing that lies in them is touched."""

import json
import os
import shutil
import tempfile
from pathlib import Path

import pytest

from tests.cli.command import ask, contents


@pytest.fixture
def finished(capsys, recipe, tmp_path):
    out = tmp_path / "finished"
    assert ask(capsys, "train", recipe, "--out", out, "--json").code == 0
    return out


def test_a_finished_run_is_kept(capsys, recipe, finished):
    before = contents(finished)
    ask(capsys, "train", recipe, "--out", finished).refuses("holds a finished run", "give a new folder")
    assert contents(finished) == before


def test_an_unfinished_run_of_another_recipe_is_kept(capsys, recipe, finished):
    (finished / "summary.json").unlink()
    before = contents(finished)
    ask(capsys, "train", recipe, "--set", "training.learning_rate=1e-3", "--out", finished).refuses(
        "another recipe", "'training.learning_rate' is 0.002 there and 0.001 here", "give a new folder"
    )
    assert contents(finished) == before


def test_a_single_run_is_no_comparison(capsys, recipe, finished):
    before = contents(finished)
    ask(capsys, "compare", recipe, "--methods", "uniform", "--out", finished).refuses("is the folder of a single run")
    assert contents(finished) == before


def test_a_comparison_of_another_recipe_is_kept(capsys, recipe, tmp_path):
    out = tmp_path / "compared"
    assert ask(capsys, "compare", recipe, "--methods", "uniform", "--out", out, "--json").code == 0
    before = contents(out)
    changed = ["--methods", "proportional,uniform", "--set", "budget=500"]
    ask(capsys, "compare", recipe, *changed, "--out", out).refuses("finished run of another recipe")
    assert contents(out) == before


def test_a_file_and_a_foreign_folder_are_left_alone(capsys, recipe, tmp_path):
    (tmp_path / "file").write_text("mine")
    ask(capsys, "train", recipe, "--out", tmp_path / "file").refuses("is a file, not a folder")
    ask(capsys, "train", recipe, "--out", tmp_path / "file" / "run").refuses("is a file")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("mine")
    ask(capsys, "train", recipe, "--out", tmp_path / "mine").refuses("is not a run folder", "thesis.tex")
    assert contents(tmp_path / "mine") == {"thesis.tex": b"mine"}
    assert (tmp_path / "file").read_text() == "mine"


def test_a_folder_that_cannot_be_written(capsys, recipe):
    # /proc takes no new folder from anyone, root included.
    asked = ask(capsys, "train", recipe, "--out", "/proc/apportion")
    asked.refuses("'/proc/apportion'")


def test_reports_on_what_is_no_run(capsys, finished, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("x")
    ask(capsys, "report", tmp_path / "empty").refuses("empty", "run folders")
    ask(capsys, "report", tmp_path / "nowhere").refuses("is not a folder")
    ask(capsys, "report", tmp_path / "file").refuses("is not a folder")
    ask(capsys, "report", finished, finished).refuses("Say which file")
    ask(capsys, "report", finished, "--out", tmp_path / "nowhere" / "r.html").refuses("could not be written")
    (finished / "summary.json").write_text("{")
    ask(capsys, "report", finished).refuses("summary.json", "is not JSON")


def test_a_run_folder_is_no_model_but_its_model_is(capsys, recipe, finished):
    ask(capsys, "plan", recipe, "--set", f"model={{name: '{finished}'}}").refuses(
        "holds no tokenizer", f"(did you mean '{finished / 'model'}'?)"
    )
    asked = ask(capsys, "plan", recipe, "--json", "--set", f"model={{name: '{finished / 'model'}'}}")
    assert asked.code == 0 and json.loads(asked.out)["parameters"]["total"] > 0


def test_a_model_whose_weights_are_cut(capsys, recipe, finished, tmp_path):
    weights = finished / "model" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    change = f"model={{name: '{finished / 'model'}'}}"
    ask(capsys, "train", recipe, "--set", change, "--out", tmp_path / "out").refuses("does not load")
    assert not (tmp_path / "out").exists()


def test_a_tokenizer_without_pad_and_end(capsys, recipe, finished):
    file = finished / "model" / "tokenizer_config.json"
    settings = json.loads(file.read_text())
    file.write_text(json.dumps({k: v for k, v in settings.items() if k not in ("pad_token", "eos_token")}))
    ask(capsys, "plan", recipe, "--set", f"model={{name: '{finished / 'model'}'}}").refuses(
        "neither a pad nor an end token"
    )


def test_no_run_among_the_data(capsys, recipe, tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    rows = [{"prompt": f"q{i}", "completion": "a"} for i in range(20)]
    (data / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    said = ("is inside the data, ", "give a folder elsewhere")
    sets = ["--set", f"tasks={{path: [{data}], max_length: 96}}", "--set", "budget=20"]
    for out in (data, data / "runs" / "x", tmp_path / "data" / ".." / "data" / "y"):
        ask(capsys, "train", recipe, *sets, "--out", out).refuses(*said)
    ask(capsys, "compare", recipe, *sets, "--methods", "uniform", "--out", data / "runs").refuses(*said)
    assert [file.name for file in data.iterdir()] == ["rows.jsonl"]
    assert ask(capsys, "train", recipe, *sets, "--out", tmp_path / "data-runs", "--json").code == 0


@pytest.fixture
def nobody():
    """A folder that everyone can reach, in a process for which permissions bind: root's own rights are put down."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o777)
    before = os.geteuid()
    if before == 0:
        os.seteuid(65534)
    try:
        yield folder
    finally:
        os.seteuid(before)
        shutil.rmtree(folder, ignore_errors=True)


def test_a_report_that_cannot_be_written(capsys, finished, tmp_path):
    (tmp_path / "file").write_text("mine")
    for out, said in [
        (tmp_path / "file" / "r.html", "could not be written: Not a directory"),
        ("/proc/r.html", "could not be written"),
        (tmp_path, f"is a folder: name the report's file, such as '{tmp_path / 'report.html'}'"),
        ("", "is a folder"),
    ]:
        ask(capsys, "report", finished, "--out", out).refuses(said)
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize("name", ["summary.json", "ledger.json", "mixture.json", "history.jsonl"])
def test_a_run_folder_with_a_file_that_cannot_be_read(capsys, finished, name):
    (finished / name).unlink()
    (finished / name).mkdir()
    ask(capsys, "report", finished).refuses(f"'{finished / name}' cannot be read: Is a directory.")


def test_a_folder_without_permission(capsys, recipe, finished, nobody):
    shut, run = nobody / "shut", nobody / "run"
    os.seteuid(0 if os.getuid() == 0 else os.geteuid())
    shutil.copytree(finished, run)
    text = (run / "recipe.yaml").read_text("utf-8")
    for path in (run, *run.rglob("*")):
        path.chmod(0o755)
    shutil.copytree(run, shut)
    shut.chmod(0o000)
    os.seteuid(65534 if os.getuid() == 0 else os.geteuid())
    mine = nobody / "recipe.yaml"
    mine.write_text(text)
    ask(capsys, "report", shut).refuses(f"'{shut}' cannot be read: Permission denied")
    ask(capsys, "train", mine, "--out", shut).refuses(f"'{shut}' cannot be read: Permission denied")
    if os.getuid() == 0:  # the folder is another's
        ask(capsys, "report", run).refuses("report.html' could not be written: Permission denied")
    mine.chmod(0o000)
    ask(capsys, "plan", mine).refuses(f"The recipe '{mine}' cannot be read: Permission denied.")


def test_what_a_library_cannot_write_is_a_sentence_too(capsys, monkeypatch, recipe, tmp_path):
    def full(*_, **__):
        raise OSError(28, "No space left on device", "/somewhere/cache")

    monkeypatch.setattr("apportion.plans.run.run_recipe", full)
    asked = ask(capsys, "train", recipe, "--out", tmp_path / "run", "--json")
    asked.refuses("'/somewhere/cache' cannot be used: No space left on device.")
