"""Folders that are taken, foreign, finished or no folders at all; nothing that lies in them is touched."""

import json

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
