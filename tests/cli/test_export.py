"""`apportion export` as a user meets it."""

import json
import shutil
import subprocess
import sys

import pytest
import yaml

from apportion.mixtures import MIXTURES
from tests.cli.command import RECIPE, ask, contents, ended, start


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A finished run."""
    folder = tmp_path_factory.mktemp("export")
    (folder / "recipe.yaml").write_text(RECIPE)
    process = start("train", folder / "recipe.yaml", "--json", "--out", folder / "run")
    assert ended(process).code == 0
    return folder / "run"


def shares(run):
    return json.loads((run / "mixture.json").read_text())["token_averaged"]


def test_the_shares_and_a_block_that_can_be_pasted(capsys, run, recipe, tmp_path):
    before = contents(run)
    done = ask(capsys, "export", run)
    assert done.code == 0 and contents(run) == before
    table, _, block = done.out.partition("To draw so from the start, in a recipe:")
    for name in shares(run):
        assert f" {name} " in table
    values = yaml.safe_load(block)
    assert MIXTURES.build(values["mixture"]).shares == pytest.approx(shares(run), abs=1e-5)
    text = yaml.safe_load(recipe.read_text()) | values
    recipe.write_text(yaml.safe_dump(text))
    assert ask(capsys, "train", recipe, "--json", "--out", tmp_path / "again").code == 0


def test_a_folder_and_what_to_do_there(capsys, run, tmp_path):
    out = tmp_path / "trl"
    done = ask(capsys, "export", run, "--to", "trl", "--out", out)
    assert done.code == 0, done.err
    assert f"Folder: {out}" in done.out and "There:  trl sft --config sft.yaml" in done.out
    assert "counts rows, not tokens" in " ".join(done.out.split())
    assert {file.name for file in out.iterdir()} == {"README.md", "data", "sft.yaml"}


def test_json_is_one_line(capsys, run, tmp_path):
    said = json.loads(ask(capsys, "export", run, "--json").out)
    assert said["path"] is None and {share["name"]: share["tokens"] for share in said["shares"]} == shares(run)
    out = tmp_path / "out"
    said = json.loads(ask(capsys, "export", run, "--json", "--to", "datasets", "--out", out).out)
    assert said["path"] == str(out) and said["command"] == "python mixture.py" and said["notes"]


def test_bad_words_end_in_a_sentence(capsys, run, tmp_path):
    out = tmp_path / "out"
    ask(capsys, "export", run, "--to", "tlr", "--out", out).refuses("Unknown trainer 'tlr' (did you mean 'trl'?)")
    ask(capsys, "export", run, "--to", "llama", "--out", out).refuses("Unknown trainer 'llama'", "llama-factory")
    ask(capsys, "export", run, "--to", "trl").refuses("'--to trl' needs '--out PATH'")
    ask(capsys, "export", run, "--out", out).refuses("'--out' needs '--to TRAINER'", "axolotl")
    ask(capsys, "export", tmp_path / "nowhere").refuses("There is no folder")
    ask(capsys, "export", tmp_path / "recipe.yaml").refuses("There is no folder")
    ask(capsys, "export", run / "model").refuses("is not a run folder")
    ask(capsys, "export", run / "mixture.json").refuses("is not a run folder")
    shutil.copytree(run, tmp_path / "cmp" / "uniform" / "seed-0")
    ask(capsys, "export", tmp_path / "cmp").refuses("is a comparison", "uniform/seed-0")
    assert not out.exists()


def test_a_typo_is_answered_before_torch_is_loaded(run):
    code = "import sys; from apportion.cli.main import main\ntry:\n main()\nfinally:\n print('torch' in sys.modules)"
    command = [sys.executable, "-c", code, "export", run, "--to", "tlr", "--out", "x"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and done.stdout.strip() == "False"
    done = subprocess.run([sys.executable, "-c", code, "export", run], capture_output=True, text=True, check=False)
    assert done.returncode == 0
