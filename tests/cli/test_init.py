"""`apportion init` as a newcomer meets it: a folder of files, four commands, an empty place."""

import json

import pytest

from tests.cli.command import ask, contents


@pytest.fixture
def place(tmp_path, monkeypatch):
    data = tmp_path / "my tasks"
    data.mkdir()
    tasks = {
        "sums": [{"prompt": f"{n}+1=", "completion": str(n + 1)} for n in range(300)],
        "zählen": [
            {"instruction": "Count.", "input": "x " * (n % 9) + str(n), "output": str(n % 9)} for n in range(90)
        ],
    }
    for name, rows in tasks.items():
        (data / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_from_files_to_a_report(place, capsys):
    said = ask(capsys, "init", "my tasks", "--target", "zählen")
    assert said.code == 0 and "read: instruction, output, input, of zählen.jsonl" in said.out
    assert said.out.endswith("Recipe: recipe.yaml\nNext:   apportion plan recipe.yaml\n")
    assert json.loads(ask(capsys, "plan", "recipe.yaml", "--json").out)["total"]["runs"] == 4
    compared = ask(capsys, "compare", "recipe.yaml", "--set", "budget=300", "--json")
    assert set(json.loads(compared.out)["arms"]) == {"uniform", "proportional", "upsample", "adapt"}
    assert "zählen" in (place / "runs" / "compare-recipe" / "report.html").read_text("utf-8")


def test_the_recipe_works_from_the_folder_above(place, capsys, monkeypatch):
    assert ask(capsys, "init", "my tasks").code == 0
    monkeypatch.chdir(place.parent)
    assert ask(capsys, "plan", f"{place.name}/recipe.yaml", "--json").code == 0


def test_json_is_what_was_found(place, capsys):
    said = json.loads(ask(capsys, "init", "my tasks", "--out", "other.yaml", "--json").out)
    assert said["recipe"] == "other.yaml" and set(said["tasks"]) == {"sums", "zählen"}
    assert [file["rows"] for file in said["files"]] == [300, 90]
    assert (place / "other.yaml").exists()


@pytest.mark.parametrize(
    ("arguments", "fragments"),
    [
        (["nowhere"], ["no file or folder 'nowhere'"]),
        (["my tasks", "--target", "zahlen"], ["neither a file nor one of the tasks", "did you mean 'zählen'?"]),
        (["my tasks", "--model", "./nowhere"], ["no folder", "nowhere"]),
        (["my tasks", "--set", "column.prompt=x"], ["Unknown key 'tasks.column'", "'columns'"]),
        (["my tasks", "--set", "columns.prompt=question"], ["no row has"]),
        (["my tasks", "--out", "my tasks/recipe.yaml"], ["among the data"]),
        (["my tasks", "--out", "taken.yaml"], ["there already"]),
    ],
)
def test_bad_input_is_one_sentence_and_nothing_is_written(place, capsys, arguments, fragments):
    (place / "taken.yaml").write_text("mine")
    before = contents(place)
    ask(capsys, "init", *arguments).refuses(*fragments)
    assert contents(place) == before
