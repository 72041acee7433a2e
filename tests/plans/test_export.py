"""A finished run handed on: which rows, under which names, and what is refused before anything is written."""

import json
import shutil

import pytest
import yaml

import apportion as ap
from apportion import ApportionError
from apportion.exports import EXPORTERS
from apportion.exports.shares import TaskShare
from apportion.plans.export import export_run, shares_in
from apportion.plans.handing import task_file
from apportion.plans.rows import kind_of, row_of
from apportion.tasks import Example
from tests.exports.runs import PAIRS, TEXTS, chat, trained, written
from tests.training.hypernets import hyper


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("APPORTION_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return trained(tmp_path_factory.mktemp("pairs"), PAIRS)


def rows_in(folder):
    return {
        file.name: [json.loads(line) for line in file.read_text("utf-8").splitlines()]
        for file in sorted((folder / "data").glob("*.jsonl"))
    }


def mixture_of(run):
    return json.loads((run.path / "mixture.json").read_text())


@pytest.mark.parametrize("name", list(EXPORTERS))
def test_every_trainer_takes_a_run(tmp_path, run, name):
    done = ap.export(run, name, tmp_path / "out")
    assert done.path == tmp_path / "out" and done.command and done.notes
    assert (done.path / "README.md").read_text("utf-8").count("\n- ") == len(done.notes)
    found = rows_in(done.path)
    assert list(found) == ["01-shout.jsonl", "02-spell-it.jsonl"]
    assert [share.name for share in done.shares] == ["shout", "spell, it"]
    assert {share.name: share.tokens for share in done.shares} == mixture_of(run)["token_averaged"]
    assert not list(tmp_path.glob(".*"))


def test_the_pasted_block_draws_the_same_shares(tmp_path, run):
    block = yaml.safe_load(shares_in(run.path).block)
    recipe = {**ap.read_run(run.path).recipe, **block, "budget": "900"}
    again = ap.train(**recipe, out=tmp_path / "again")
    wanted = mixture_of(run)["token_averaged"]
    # Over some hundred draws of whole examples.
    assert mixture_of(again)["token_averaged"] == pytest.approx(wanted, abs=0.02)


def test_what_a_selection_left_out_is_not_handed_on(tmp_path):
    run = trained(tmp_path, PAIRS, selection={"type": "random", "limit": {"examples": 30}}, budget=400)
    found = rows_in(export_run(run.path, "trl", tmp_path / "out").path)
    assert sum(map(len, found.values())) == 30
    kept = json.loads((run.path / "summary.json").read_text())["selection"]["tasks"]
    assert [len(rows) for rows in found.values()] == [task["kept"] for task in kept.values() if task["kept"]]
    # The file may be another run's.
    file = {"type": "file", "path": str(run.path / "selection.parquet")}
    again = trained(tmp_path / "again", PAIRS, selection=file, budget=400)
    assert rows_in(export_run(again.path, "trl", tmp_path / "two").path) == found


def test_a_target_is_handed_on_with_its_cap(tmp_path):
    goals = written(tmp_path / "goals", {"loud": [{"prompt": f"Cry {i}.", "completion": f"{i}!"} for i in range(20)]})
    run = trained(tmp_path, PAIRS, targets={"path": str(goals), "train": 3}, mixture={"type": "upsample", "share": 0.5})
    done = export_run(run.path, "datasets", tmp_path / "out")
    assert list(rows_in(done.path)) == ["01-shout.jsonl", "02-spell-it.jsonl", "03-loud.jsonl"]
    assert any("caps on epochs, of 'loud'" in note for note in done.notes)
    exact = export_run(run.path, "trl", tmp_path / "exact")
    assert not any("caps on epochs" in note for note in exact.notes)
    assert max(share.epochs for share in exact.shares if share.name == "loud") <= 3


def test_a_long_text_is_one_row_and_counted_by_its_epochs(tmp_path):
    long = {"notes": [{"text": f"{i} {' and so on' * 30}"} for i in range(30)], **TEXTS}
    long["other"] = TEXTS["notes"]
    run = trained(tmp_path, long, budget=6000)
    done = export_run(run.path, "trl", tmp_path / "out")
    tasks = mixture_of(run)["tasks"]
    config = yaml.safe_load((done.path / "sft.yaml").read_text())
    for name, rows in zip(tasks, rows_in(done.path).values(), strict=True):
        whole = len(rows) * sum(
            entry["split"] == "train" for entry in config["datasets"] if name in entry["data_files"]
        )
        part = sum(
            int(entry["split"][7:-1])
            for entry in config["datasets"]
            if name in entry["data_files"] and entry["split"] != "train"
        )
        assert whole + part == round(tasks[name]["epochs"] * len(rows))


def test_weights_and_movement_are_said(tmp_path):
    run = trained(tmp_path, PAIRS, weights="linupper", mixture={"type": "loss", "refresh": 2, "max_cost": 1})
    done = export_run(run.path, "trl", tmp_path / "out")
    assert any("'weights.type: linupper'" in note for note in done.notes)
    assert all(share.weight is not None for share in done.shares)
    assert "mean weight" in (done.path / "README.md").read_text("utf-8")
    moved = ap.read_run(run.path).moved
    assert any(f"up to {moved:.0%} of its draws" in note for note in done.notes) == (moved >= 0.05)


def test_a_run_is_handed_on_from_a_named_model_as_it_is(tmp_path, run):
    named = trained(tmp_path, PAIRS, model={"name": str(run.path / "model")}, lora={"r": 2})
    done = export_run(named.path, "trl", tmp_path / "out")
    assert not any("from a config" in note for note in done.notes)
    assert yaml.safe_load((done.path / "sft.yaml").read_text())["model_name_or_path"] == str(run.path / "model")
    alone = trained(tmp_path / "alone", PAIRS, lora={"r": 2})
    done = export_run(alone.path, "trl", tmp_path / "scratch")
    assert any("from a config" in note for note in done.notes)
    config = yaml.safe_load((done.path / "sft.yaml").read_text())
    assert config["model_name_or_path"] == str(alone.path / "model" / "base")


def refused(said, *arguments):
    with pytest.raises(ApportionError, match=said):
        export_run(*arguments)


def test_what_is_no_finished_run_is_refused(tmp_path, run):
    out = tmp_path / "out"
    refused("There is no folder", tmp_path / "nowhere", "trl", out)
    refused("is not a run folder", tmp_path, "trl", out)
    half = tmp_path / "half"
    shutil.copytree(run.path, half)
    (half / "summary.json").unlink()
    refused("is not finished: start it again", half, "trl", out)
    arm = tmp_path / "cmp" / "uniform" / "seed-0"
    shutil.copytree(run.path, arm)
    refused(r"is a comparison of 1 runs: give one of them, such as .*seed-0'", tmp_path / "cmp", "trl", out)
    refused(r"Unknown trainer 'trll' \(did you mean 'trl'\?\)", run.path, "trll", out)
    assert not out.exists()


def test_a_folder_that_is_taken_or_cannot_be_is_refused(tmp_path, run):
    taken = tmp_path / "taken"
    taken.mkdir()
    (taken / "file").write_text("x")
    refused("is there already", run.path, "trl", taken)
    refused("is there already", run.path, "trl", taken / "file")
    refused("'.*file' is a file", run.path, "trl", taken / "file" / "out")
    refused("is inside the data", run.path, "trl", run.path.parent / "data" / "out")
    assert [file.name for file in taken.iterdir()] == ["file"]
    empty = tmp_path / "empty"
    empty.mkdir()
    assert export_run(run.path, "trl", empty).path == empty
    deep = export_run(run.path, "datasets", tmp_path / "a" / "b")
    assert (deep.path / "mixture.py").is_file()


def test_data_that_changed_is_refused(tmp_path):
    run = trained(tmp_path, PAIRS)
    with (tmp_path / "data" / "shout.jsonl").open("a") as file:
        file.write(json.dumps({"prompt": "new", "completion": "row"}) + "\n")
    refused("changed since the run", run.path, "trl", tmp_path / "out")
    shutil.rmtree(tmp_path / "data")
    refused("data", run.path, "trl", tmp_path / "out")
    assert shares_in(run.path).shares and not (tmp_path / "out").exists()


def test_a_hypernetwork_is_refused_and_its_shares_are_shown(tmp_path):
    run = hyper(tmp_path / "run")
    refused("An export does not go with .* without --to it shows the shares", run.path, "trl", tmp_path / "out")
    assert len(shares_in(run.path).shares) == 3


def test_nothing_is_left_of_an_export_that_is_stopped(tmp_path, run, monkeypatch):
    written_so_far = []

    def stopped(*_):
        written_so_far.extend(tmp_path.rglob("*.jsonl"))
        raise KeyboardInterrupt

    monkeypatch.setattr("apportion.plans.handing.row_of", stopped)
    with pytest.raises(KeyboardInterrupt):
        export_run(run.path, "trl", tmp_path / "out")
    assert written_so_far and list(tmp_path.iterdir()) == []


def test_from_python_both_are_given_or_neither(tmp_path, run):
    assert ap.export(run).path is None
    assert ap.export(str(run.path)).shares == ap.export(run.path).shares
    with pytest.raises(ApportionError, match="needs both"):
        ap.export(run, "trl")
    with pytest.raises(ApportionError, match="'run' must be a run folder"):
        ap.export(3)
    with pytest.raises(ApportionError, match="'out' must be a folder"):
        ap.export(run, "trl", 3)


@pytest.mark.parametrize("name", ["../../etc", "a/b", "", "...", "日本", "x" * 300, "A", "a", "CON", "a b, c"])
def test_any_name_of_a_task_becomes_a_safe_file(name):
    share = TaskShare(name, 1, 1.0, 1.0, 1, 1.0)
    file = task_file(7, share, 1, "pairs").file
    assert file.startswith("data/07") and file.endswith(".jsonl") and file.count("/") == 1
    assert ".." not in file and len(file) < 80 and file.isascii() and " " not in file and "," not in file


def example(prompt="", completion="c", messages=None):
    return Example(prompt, completion, "id", None if messages is None else tuple(messages["messages"]))


TALK = example("q", "a", chat("q", "a"))
LONG = example("q", "a", chat("q", "a", "q2", "a2"))
TEXT, PAIR = example(), example("p")


def test_kinds():
    assert kind_of("t", [TEXT, TEXT], True) == kind_of("t", [TEXT], False) == "text"
    assert kind_of("t", [PAIR, TEXT], False) == "pairs" and kind_of("t", [TALK], False) == "pairs"
    assert kind_of("t", [PAIR, TALK], True) == "answers" and kind_of("t", [PAIR, LONG], True) == "chats"
    unended = example("q", "a", chat("q", "a", "thanks"))
    assert kind_of("t", [unended], True) == "chats"
    with pytest.raises(ApportionError, match="'t' holds plain text beside prompts"):
        kind_of("t", [PAIR, TEXT], True)
    with pytest.raises(ApportionError, match="'t' holds conversations with several answers"):
        kind_of("t", [LONG], False)


def test_rows():
    assert row_of(TEXT, "text", "") == {"text": "c"}
    assert row_of(PAIR, "pairs", "<e>") == {"prompt": "p\n", "completion": "c<e>"}
    assert row_of(TEXT, "pairs", "") == {"prompt": "", "completion": "c"}
    assert row_of(TALK, "pairs", "") == {"prompt": "q\n", "completion": "a"}
    user, assistant = {"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}
    assert row_of(TALK, "asked", "") == {"prompt": [user], "completion": [assistant]}
    assert row_of(TALK, "messages", "") == {"messages": [user, assistant]}
    assert row_of(PAIR, "messages", "")["messages"][1] == {"role": "assistant", "content": "c"}
