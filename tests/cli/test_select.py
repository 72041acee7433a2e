"""`apportion select` as a user meets it: what it says, what it leaves, and how it goes on."""

import json

import pyarrow.parquet as pq
import pytest

from apportion.signals.pool_states import PoolStates
from tests.cli.command import ask

BM25 = ("--set", "selection.type=bm25", "--set", "selection.limit=20%")
EMBEDDING = ("--set", "selection.type=embedding", "--set", "selection.limit={examples: 30}")


def kept(file):
    return {row["id"] for row in pq.read_table(file).to_pylist() if row["kept"]}


def test_it_says_what_is_kept_by_task_and_what_it_cost(capsys, recipe, tmp_path):
    out = tmp_path / "kept.parquet"
    done = ask(capsys, "select", recipe, *EMBEDDING, "--out", out)
    assert done.code == 0, done.err
    rows = pq.read_table(out).to_pylist()
    assert sum(row["kept"] for row in rows) == 30
    assert f"Kept 30 of {len(rows):,} examples" in done.out and "30 within the limit" in done.out
    assert "FLOPs (select)" in done.out and str(out) in done.out
    for name in {row["task"] for row in rows}:
        of = [row["kept"] for row in rows if row["task"] == name]
        (line,) = [line for line in done.out.splitlines() if f" {name} " in line]
        assert line.replace("│", " ").split()[:3] == [name, str(len(of)), str(sum(of))]
    assert {path.name for path in tmp_path.iterdir()} == {"kept.parquet", "recipe.yaml"}


def test_json_is_the_same_in_one_line_of_stdout(capsys, recipe, tmp_path):
    done = ask(capsys, "select", recipe, *BM25, "--out", tmp_path / "kept.parquet", "--json")
    said = json.loads(done.out)
    assert done.code == 0 and said["type"] == "bm25" and said["spent"] == {}
    assert said["kept"]["examples"] == len(kept(said["path"])) > 0
    assert said["kept"]["supervised"] <= 0.2 * said["pool"]["supervised"]


def test_it_says_where_no_pass_was_made(capsys, recipe, tmp_path):
    assert "Cost: no pass of a model." in ask(capsys, "select", recipe, *BM25, "--out", tmp_path / "kept.parquet").out


def test_a_run_on_the_file_is_the_run_that_selects(capsys, recipe, tmp_path):
    out = tmp_path / "kept.parquet"
    assert ask(capsys, "select", recipe, *BM25, "--out", out).code == 0
    given = ("--set", "selection.type=file", "--set", f"selection.path={out}", "--set", "mixture=proportional")
    assert ask(capsys, "train", recipe, *given, "--out", tmp_path / "given", "--json").code == 0
    whole = (*BM25, "--set", "mixture=proportional")
    assert ask(capsys, "train", recipe, *whole, "--out", tmp_path / "made", "--json").code == 0
    assert kept(tmp_path / "made" / "selection.parquet") == kept(out)
    weights = [(tmp_path / name / "model" / "model.safetensors").read_bytes() for name in ("given", "made")]
    assert weights[0] == weights[1]


def test_stopped_the_same_command_goes_on(capsys, recipe, tmp_path, monkeypatch):
    """And what another recipe left there is not taken."""
    whole, out = tmp_path / "whole.parquet", tmp_path / "kept.parquet"
    assert ask(capsys, "select", recipe, *EMBEDDING, "--out", whole).code == 0
    real, seen = PoolStates.show, []

    def stopped(signal, chunk):
        seen.append(chunk)
        if len(seen) == 6:
            raise KeyboardInterrupt
        return real(signal, chunk)

    monkeypatch.setattr(PoolStates, "show", stopped)
    assert ask(capsys, "select", recipe, *EMBEDDING, "--out", out).code == 130
    work = tmp_path / "kept.parquet.work"
    assert len(list((work / "selecting").glob("look-0-*.safetensors"))) == 5 and not out.exists()
    other = ask(capsys, "select", recipe, *EMBEDDING, "--set", "seed=3", "--out", out)
    other.refuses("another recipe", "'seed'")
    done = ask(capsys, "select", recipe, *EMBEDDING, "--out", out)
    assert done.code == 0, done.err
    assert out.read_bytes() == whole.read_bytes()
    assert len(seen) == 1 + 20  # as many as there are tasks, and the one that was lost
    assert not work.exists()


def test_a_file_that_is_there_is_kept(capsys, recipe, tmp_path):
    out = tmp_path / "kept.parquet"
    out.write_text("mine")
    ask(capsys, "select", recipe, *BM25, "--out", out).refuses(f"'{out}' is there already", "give a new file")
    assert out.read_text() == "mine" and not (tmp_path / "kept.parquet.work").exists()


@pytest.mark.parametrize(
    ("assignments", "fragments"),
    [
        ((), ("The recipe selects nothing: name a method, such as 'selection: bm25'",)),
        (("selection=all",), ("The recipe selects nothing",)),
        (("selection={type: file, path: x.parquet}",), ("The recipe selects nothing",)),
        (("selction=bm25",), ("Unknown key 'selction' (did you mean 'selection'?)",)),
        (("selection=bm52",), ("Unknown selection 'bm52' (did you mean 'bm25'?)",)),
        (("selection={type: bm25, limt: 5%}",), ("Unknown key 'selection.limt' (did you mean 'limit'?)",)),
        (
            ("selection={type: less, projction: 64}",),
            ("Unknown key 'selection.projction' (did you mean 'projection'?)",),
        ),
        (("selection={type: bm25, limit: 1e9 FLOPs}",), ("'selection.limit' is in tokens or examples",)),
        (("selection={type: bm25, limit: 1}",), ("'selection.limit' keeps 1 supervised tokens", "raise it")),
        (
            ("selection=bm25", "kind={type: tagi, base: all, kl: 0}", "tasks.instruction=apart"),
            ("'selection' does not go with 'kind: tagi', whose adapters belong to tasks",),
        ),
    ],
)
def test_mistakes_are_one_sentence_and_leave_nothing(capsys, recipe, tmp_path, assignments, fragments):
    sets = [part for assignment in assignments for part in ("--set", assignment)]
    ask(capsys, "select", recipe, *sets, "--out", tmp_path / "kept.parquet").refuses(*fragments)
    assert [path.name for path in tmp_path.iterdir()] == ["recipe.yaml"]


def test_a_missing_folder_is_made_and_a_file_in_its_place_is_said(capsys, recipe, tmp_path):
    assert ask(capsys, "select", recipe, *BM25, "--out", tmp_path / "a" / "b.parquet").code == 0
    (tmp_path / "file").write_text("")
    ask(capsys, "select", recipe, *BM25, "--out", tmp_path / "file" / "b.parquet").refuses("file")
