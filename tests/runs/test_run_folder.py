"""The run folder: nothing is overwritten, nothing is half written, what goes in comes out."""

import json
import math
import os
import signal
import subprocess
import sys

import pytest

from apportion._errors import ApportionError
from apportion.runs import RunFolder, atomic_write_text, is_run, read_comparison, read_run

RECIPE = {
    "model": {"name": "tiny"},
    "budget": "5%",
    "mixture": {"type": "adapt", "tau": 0.3, "entropy": 1e-5},
    "seed": 3,
}


def record(step, **more):
    spent = {"train": {"supervised": 10 * step, "processed": 20 * step, "padded": 24 * step, "flops": 1e9 * step}}
    return {"step": step, "spent": spent, "seconds": 0.1 * step, "loss": 1 / (step + 1), **more}


def tree(path):
    return {str(p.relative_to(path)): p.read_bytes() for p in sorted(path.rglob("*")) if p.is_file()}


def test_what_is_written_is_read_back(tmp_path):
    with RunFolder.create(tmp_path / "run", RECIPE) as folder:
        assert not folder.resumed
        assert folder.checkpoints_dir.is_dir()
        folder.append_history(record(1))
        folder.append_history(record(2, macro=0.1 + 0.2, validation={'ta<sk & "é"': 1e-300}))
        ledger = {"budget": {"unit": "supervised", "limit": 20}, "accounts": record(2)["spent"]}
        folder.write_ledger(ledger)
        folder.write_mixture({"final": {"a": 1.0}, "token_averaged": {"a": 1.0}, "tasks": {}})
        assert not read_run(folder.path).finished
        folder.write_summary({"method": "adapt", "seed": 3, "seconds": 5.0})
    run = read_run(tmp_path / "run")
    assert run.finished and run.recipe == RECIPE and run.seed == 3 and run.method == "adapt"
    assert run.history == (record(1), record(2, macro=0.1 + 0.2, validation={'ta<sk & "é"': 1e-300}))
    assert run.ledger == ledger and run.mixture["final"] == {"a": 1.0}
    assert run.total_flops == 2e9 and run.supervised_tokens == 20
    assert not run.is_baseline


def mixtures(*shares):
    return [record(step, mixture={"a": share, "b": 1 - share}) for step, share in enumerate(shares)]


@pytest.mark.parametrize(
    ("plain", "weights", "baseline"), [(True, True, True), (False, True, False), (True, False, False)]
)
def test_what_is_a_baseline_the_methods_say(tmp_path, plain, weights, baseline):
    said = {"mixture": {"type": "mine:Own", "plain": plain}, "weights": {"type": "uniform", "plain": weights}}
    with RunFolder.create(tmp_path, {**RECIPE, "mixture": {"type": "mine:Own"}}) as folder:
        for line in mixtures(0.5, 0.9):
            folder.append_history(line)
        folder.write_summary({"methods": said})
    assert read_run(tmp_path).is_baseline is baseline


@pytest.mark.parametrize(
    ("shares", "weights", "baseline"),
    [((0.3, 0.3, 0.3), "uniform", True), ((0.3, 0.3, 0.4), "uniform", False), ((0.3, 0.3), "bm25", False)],
)
def test_an_older_run_is_judged_by_whether_its_mixture_moved(tmp_path, shares, weights, baseline):
    with RunFolder.create(tmp_path, {"mixture": {"type": "mine:Own"}, "weights": {"type": weights}}) as folder:
        for line in mixtures(*shares):
            folder.append_history(line)
        folder.write_summary({"method": "mine:Own"})
    assert read_run(tmp_path).is_baseline is baseline


def test_the_last_validation_is_read_back_example_by_example(tmp_path):
    validation = {"step": 9, "tasks": {"a": {"ids": ["x"], "nll": [0.1 + 0.2], "supervised": [3]}}}
    final = {"validation": {"a": 0.1}, "examples": {"a": 1}, "se": {"a": None}, "macro_se": None}
    with RunFolder.create(tmp_path, RECIPE) as folder:
        folder.write_validation(validation)
        assert read_run(tmp_path).validation == validation
        folder.write_summary({"final": final})
    run = read_run(tmp_path)
    assert run.examples == 1 and run.errors == {"macro": None, "worst": None, "objective": None}


def test_every_json_object_says_its_schema(tmp_path):
    with RunFolder.create(tmp_path, RECIPE) as folder:
        folder.append_history(record(1))
        folder.append_history(record(2))
        folder.write_ledger({"accounts": {}})
        folder.write_mixture({})
        folder.write_summary({})
    lines = (tmp_path / "history.jsonl").read_text().splitlines()
    files = [(tmp_path / f"{name}.json").read_text() for name in ("ledger", "mixture", "summary")]
    assert len(lines) == 2
    assert all(json.loads(text)["schema"] == 1 for text in lines + files)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_number_that_is_not_finite_becomes_null(tmp_path, bad):
    with RunFolder.create(tmp_path, RECIPE) as folder:
        folder.append_history(record(1, macro=bad, validation={"a": bad, "b": 1.0}))
        folder.write_summary({"final": {"macro": bad}})
    text = (tmp_path / "history.jsonl").read_text() + (tmp_path / "summary.json").read_text()
    assert "NaN" not in text and "Infinity" not in text
    assert read_run(tmp_path).history[0]["validation"] == {"a": None, "b": 1.0}
    assert read_run(tmp_path).final == {"macro": None}


def test_an_unfinished_run_of_the_same_recipe_is_resumed(tmp_path):
    with RunFolder.create(tmp_path, RECIPE) as folder:
        for step in range(5):
            folder.append_history(record(step))
    with RunFolder.create(tmp_path, {**RECIPE, "mixture": dict(RECIPE["mixture"])}) as folder:
        assert folder.resumed
        folder.truncate_history(3)
        folder.append_history(record(3))
    assert [r["step"] for r in read_run(tmp_path).history] == [0, 1, 2, 3]


def test_resuming_drops_the_line_a_kill_cut(tmp_path):
    with RunFolder.create(tmp_path, RECIPE) as folder:
        folder.append_history(record(0))
    with (tmp_path / "history.jsonl").open("a") as file:
        file.write('{"schema": 1, "step": 1, "spe')
    assert [r["step"] for r in read_run(tmp_path).history] == [0]
    with RunFolder.create(tmp_path, RECIPE) as folder:
        folder.truncate_history(1)
        folder.append_history(record(1))
        with pytest.raises(ApportionError, match="2 records but the checkpoint was written after 7"):
            folder.truncate_history(7)
    assert [r["step"] for r in read_run(tmp_path).history] == [0, 1]


def test_resuming_without_a_checkpoint_starts_the_history_again(tmp_path):
    with RunFolder.create(tmp_path, RECIPE) as folder:
        folder.truncate_history(0)
        folder.append_history(record(0))
    with RunFolder.create(tmp_path, RECIPE) as folder:
        folder.truncate_history(0)
    assert read_run(tmp_path).history == ()


def test_another_recipe_is_refused_and_nothing_is_touched(tmp_path):
    RunFolder.create(tmp_path, RECIPE).close()
    before = tree(tmp_path)
    with pytest.raises(ApportionError, match=r"'mixture.tau' is 0.3 there and 0.5 here"):
        RunFolder.create(tmp_path, {**RECIPE, "mixture": {**RECIPE["mixture"], "tau": 0.5}})
    with pytest.raises(ApportionError, match="'extra' is None there and 1 here"):
        RunFolder.create(tmp_path, {**RECIPE, "extra": 1})
    assert tree(tmp_path) == before


def test_a_finished_run_is_refused_and_nothing_is_touched(tmp_path):
    with RunFolder.create(tmp_path, RECIPE) as folder:
        folder.write_summary({"method": "adapt"})
    before = tree(tmp_path)
    with pytest.raises(ApportionError, match="finished run"):
        RunFolder.create(tmp_path, RECIPE)
    assert tree(tmp_path) == before


def test_a_foreign_folder_or_file_is_refused_and_nothing_is_touched(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "thesis.tex").write_text("years of work")
    (tmp_path / "file").write_text("x")
    before = tree(tmp_path)
    with pytest.raises(ApportionError, match=r"thesis\.tex"):
        RunFolder.create(tmp_path / "folder", RECIPE)
    with pytest.raises(ApportionError, match="is a file"):
        RunFolder.create(tmp_path / "file", RECIPE)
    assert tree(tmp_path) == before


def test_what_a_kill_before_the_recipe_leaves_is_no_obstacle(tmp_path):
    (tmp_path / ".lock").touch()
    (tmp_path / ".recipe.yaml.123.tmp").write_text("mod")
    with RunFolder.create(tmp_path, RECIPE) as folder:
        assert not folder.resumed
    assert not list(tmp_path.glob(".*.tmp"))


HOLD = """
import sys, time
from apportion.runs import RunFolder
folder = RunFolder.create(sys.argv[1], {"seed": 1})
folder.append_history({"step": 0, "spent": {}, "seconds": 0.0})
print("held", flush=True)
time.sleep(60)
"""


def test_a_live_run_holds_its_folder_and_a_killed_one_lets_go(tmp_path):
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(ApportionError, match="another live run"):
            RunFolder.create(tmp_path, {"seed": 1})
        holder.send_signal(signal.SIGKILL)
        holder.wait()
        with RunFolder.create(tmp_path, {"seed": 1}) as folder:
            assert folder.resumed
        assert len(read_run(tmp_path).history) == 1
    finally:
        holder.kill()
        holder.wait()
        holder.stdout.close()


SMALL_DISK = """
import resource, signal, sys
from pathlib import Path
from apportion._errors import ApportionError
from apportion.runs import RunFolder
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
folder = RunFolder.create(sys.argv[1], {"seed": 1})
folder.append_history({"step": 0, "spent": {}, "seconds": 0.0})
folder.write_ledger({"accounts": {}})
resource.setrlimit(resource.RLIMIT_FSIZE, (300, 300))
big = {"step": 1, "x": "y" * 1000}
for call in (folder.append_history, folder.write_ledger):
    try:
        call(big)
    except ApportionError as error:
        print(error)
"""


def test_a_write_that_fails_halfway_leaves_the_old_files_whole(tmp_path):
    # A limit on file size stops a write in its middle as a full disk does, with the real system calls.
    done = subprocess.run([sys.executable, "-c", SMALL_DISK, str(tmp_path)], capture_output=True, text=True, check=True)
    sentences = done.stdout.splitlines()
    assert len(sentences) == 2
    assert "history.jsonl' could not be written" in sentences[0] and "ledger.json' could not be written" in sentences[1]
    run = read_run(tmp_path)
    assert [r["step"] for r in run.history] == [0] and run.ledger["accounts"] == {}
    assert (tmp_path / "history.jsonl").read_text().endswith("\n")
    assert not list(tmp_path.glob(".*.tmp"))


def test_a_full_disk_is_one_sentence(tmp_path):
    RunFolder.create(tmp_path, RECIPE).close()
    (tmp_path / f".ledger.json.{os.getpid()}.tmp").symlink_to("/dev/full")
    with pytest.raises(ApportionError, match=r"The disk is full: .*ledger\.json"):
        atomic_write_text(tmp_path / "ledger.json", "x" * 100)
    assert not (tmp_path / "ledger.json").exists()


def test_reading_what_is_no_run(tmp_path):
    with pytest.raises(ApportionError, match="not a run folder"):
        read_run(tmp_path / "missing")
    with pytest.raises(ApportionError, match="not a comparison"):
        read_comparison(tmp_path)
    RunFolder.create(tmp_path / "run", RECIPE).close()
    (tmp_path / "run" / "history.jsonl").write_text('{"schema": 1}\nnot json\n{"schema": 1}\n')
    with pytest.raises(ApportionError, match=r"Line 2 of .*history\.jsonl' is not JSON"):
        read_run(tmp_path / "run")
    (tmp_path / "run" / "history.jsonl").write_text('{"schema": 2}\n')
    with pytest.raises(ApportionError, match="has schema 2, this version reads 1"):
        read_run(tmp_path / "run")


def test_child_runs_inside_a_run_and_a_recipe_beside_the_arms_confuse_nobody(tmp_path):
    RunFolder.create(tmp_path / "run", RECIPE).close()
    RunFolder.create(tmp_path / "run" / "proxies" / "seed-1", RECIPE).close()
    RunFolder.create(tmp_path / "comparison" / "uniform" / "seed-1", RECIPE).close()
    (tmp_path / "comparison" / "recipe.yaml").write_text("arms: {}")
    assert is_run(tmp_path / "run") and not is_run(tmp_path / "comparison")
    assert read_run(tmp_path / "run").recipe == RECIPE
    assert list(read_comparison(tmp_path / "comparison")) == ["uniform"]


def test_a_comparison_is_read_by_arm_and_seed_in_order(tmp_path):
    for arm in ("uniform", "adapt"):
        for seed in (10, 9):
            RunFolder.create(tmp_path / arm / f"seed-{seed}", {"seed": seed}).close()
    (tmp_path / "adapt" / "seed-x").mkdir()
    found = read_comparison(tmp_path)
    assert list(found) == ["adapt", "uniform"]
    assert [run.seed for run in found["adapt"]] == [9, 10]
