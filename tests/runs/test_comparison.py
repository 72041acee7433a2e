"""The summary of a comparison, on histories whose answers can be worked out by hand."""

import json

import pytest

from apportion._errors import ApportionError
from apportion.runs import RunFolder, summarise


def write(root, arm, seed, losses, meta=0.0, finished=True, limit=400, targets=(), goals=None):
    """One run with a validation every 100 tokens; ``meta`` FLOPs more for each token; ``targets`` their losses by step."""
    recipe = {"mixture": {"type": arm}, "seed": seed} | ({"targets": goals or {"importance": {}}} if targets else {})
    folder = RunFolder.create(root / arm / f"seed-{seed}", recipe)
    with folder:
        for step, loss in enumerate(losses):
            tokens = 100 * step
            spent = {
                "train": {"supervised": tokens, "processed": tokens, "padded": tokens, "flops": 10.0 * tokens},
                "meta": {"supervised": 0, "processed": tokens, "padded": tokens, "flops": meta * tokens},
            }
            values = {"macro": loss, "worst": 2 * loss, "objective": loss + 1}
            if targets:
                values |= {"targets": {"t": targets[step]}, "target": targets[step], "others": loss}
            folder.append_history({"step": step, "spent": spent, "seconds": 1.0 * step, **values})
        folder.write_ledger({"budget": {"unit": "supervised", "limit": limit}, "accounts": spent})
        if finished:
            final = {**values, "validation": {"a": loss}}
            if targets:
                final |= {"examples": {"a": 7, "t": 5}, "se": {"a": 0.2, "t": 0.1}, "target_se": 0.1}
            methods = {"mixture": {"type": arm, "plain": arm == "uniform", "advice": {}}}
            summary = {"method": arm, "methods": methods, "seed": seed, "n_eff": 2.0 + seed, "seconds": 9.0}
            folder.write_summary({**summary, "final": final})


def test_a_summary_by_hand(tmp_path):
    for seed in (0, 1):
        write(tmp_path, "uniform", seed, [5.0, 4.0, 3.5, 3.0, 2.0])
        write(tmp_path, "adapt", seed, [5.0, 3.0, 2.0 - seed, 1.5 - seed, 1.6 - seed], meta=10.0)
    summary = summarise(tmp_path)
    assert json.loads((tmp_path / "summary.json").read_text()) == summary
    assert summary["equal"] is True and summary["differs"] == []
    assert summary["schema"] == 1 and summary["best_baseline"] == "uniform"
    adapt, uniform = summary["arms"]["adapt"], summary["arms"]["uniform"]
    assert adapt["runs"] == ["adapt/seed-0", "adapt/seed-1"] and adapt["unfinished"] == []
    assert uniform["baseline"] and not adapt["baseline"]
    assert adapt["final"]["macro"] == pytest.approx({"mean": 1.1, "min": 0.6, "max": 1.6})
    assert adapt["best"]["macro"] == pytest.approx({"mean": 1.0, "min": 0.5, "max": 1.5})
    assert adapt["n_eff"] == {"mean": 2.5, "min": 2.0, "max": 3.0}
    assert adapt["total_flops"]["mean"] == 8000.0 and uniform["total_flops"]["mean"] == 4000.0
    assert adapt["supervised_tokens"]["mean"] == 400 and adapt["seconds"]["mean"] == 9.0
    # Seed 0 is at 2.0 after 200 tokens of uniform's 400; seed 1 is at 1.0 then, and was at 2.0 halfway between.
    expected = {"mean": 0.4375, "min": 0.375, "max": 0.5, "reached": 2, "of": 2}
    assert adapt["tokens_to_best_of"]["uniform"]["macro"] == expected
    assert adapt["tokens_to_best_of"]["uniform"]["objective"] == expected
    assert adapt["flops_to_best_of"]["uniform"]["macro"] == {**expected, "mean": 0.875, "min": 0.75, "max": 1.0}
    assert uniform["tokens_to_best_of"]["adapt"]["macro"] is None


def test_with_targets_the_best_baseline_and_the_shares_are_theirs(tmp_path):
    write(tmp_path, "uniform", 0, [5.0, 3.0, 2.0], targets=[4.0, 3.5, 3.0])
    write(tmp_path, "adapt", 0, [5.0, 4.0, 3.0], meta=10.0, targets=[4.0, 3.0, 1.0])
    summary = summarise(tmp_path)
    adapt = summary["arms"]["adapt"]
    assert summary["best_baseline"] == "uniform"
    assert adapt["final"]["target"] == adapt["best"]["target"] == {"mean": 1.0, "min": 1.0, "max": 1.0}
    assert adapt["final"]["others"]["mean"] == 3.0 and adapt["final"]["macro"]["mean"] == 3.0
    assert adapt["se"]["target"] == 0.1 and adapt["se"]["others"] == 0.2
    assert adapt["examples"] == 7 and adapt["target_examples"] == 5
    reached = {"mean": 0.5, "min": 0.5, "max": 0.5, "reached": 1, "of": 1}
    assert adapt["tokens_to_best_of"]["uniform"] == {"macro": None, "objective": None, "target": reached}
    assert adapt["flops_to_best_of"]["uniform"]["target"] == {**reached, "mean": 1.0, "min": 1.0, "max": 1.0}


def test_the_best_baseline_is_the_nearest_to_the_targets(tmp_path):
    write(tmp_path, "uniform", 0, [5.0, 3.0, 2.0], targets=[4.0, 3.5, 3.0])
    write(tmp_path, "upsample", 0, [5.0, 3.5, 3.0], targets=[4.0, 2.5, 2.0])
    path = tmp_path / "upsample" / "seed-0" / "summary.json"
    path.write_text(path.read_text().replace('"plain": false', '"plain": true'))
    assert summarise(tmp_path)["best_baseline"] == "upsample"


def test_runs_without_the_same_targets_are_compared_as_runs_without_any(tmp_path):
    write(tmp_path, "uniform", 0, [5.0, 3.0, 2.0], targets=[4.0, 3.5, 3.0])
    write(tmp_path, "adapt", 0, [5.0, 4.0, 3.0], targets=[4.0, 3.0, 1.0], goals={"importance": {"t": 2.0}})
    summary = summarise(tmp_path)
    assert set(summary["arms"]["adapt"]["final"]) == {"macro", "worst", "objective"}
    assert "target" not in summary["arms"]["adapt"]["tokens_to_best_of"]["uniform"]


def test_an_arm_that_gets_there_in_some_seeds_says_in_how_many(tmp_path):
    write(tmp_path, "uniform", 0, [5.0, 3.0, 2.0])
    write(tmp_path, "uniform", 1, [5.0, 3.0, 2.0])
    write(tmp_path, "uniform", 7, [5.0, 3.0, 2.0])
    write(tmp_path, "adapt", 0, [5.0, 2.0, 1.0])
    write(tmp_path, "adapt", 1, [5.0, 4.0, 3.0])
    shares = summarise(tmp_path)["arms"]["adapt"]["tokens_to_best_of"]["uniform"]["macro"]
    assert shares == {"mean": 0.5, "min": 0.5, "max": 0.5, "reached": 1, "of": 2}


def test_unfinished_runs_are_named_and_do_not_count(tmp_path):
    write(tmp_path, "uniform", 0, [5.0, 3.0])
    write(tmp_path, "uniform", 1, [5.0, 1.0], finished=False)
    write(tmp_path, "adapt", 0, [5.0], finished=False)
    arms = summarise(tmp_path)["arms"]
    assert arms["uniform"]["final"]["macro"] == {"mean": 3.0, "min": 3.0, "max": 3.0}
    assert arms["uniform"]["unfinished"] == ["uniform/seed-1"] and len(arms["uniform"]["runs"]) == 2
    assert arms["adapt"]["final"] == {"macro": None, "worst": None, "objective": None}
    assert arms["adapt"]["tokens_to_best_of"]["uniform"] == {"macro": None, "objective": None}


def test_no_comparison_writes_nothing(tmp_path):
    with pytest.raises(ApportionError, match="not a comparison"):
        summarise(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_on_the_front_are_the_arms_that_no_other_beats_in_both(tmp_path):
    write(tmp_path, "uniform", 0, [5.0, 3.0, 2.0])
    write(tmp_path, "adapt", 0, [5.0, 2.0, 1.0], meta=10.0)
    write(tmp_path, "loss", 0, [5.0, 3.0, 2.5], meta=5.0)
    write(tmp_path, "twin", 0, [5.0, 3.0, 2.0])
    write(tmp_path, "broken", 0, [5.0, 1.0], finished=False)
    summary = summarise(tmp_path)
    on = {name: arm["on_front"] for name, arm in summary["arms"].items()}
    assert on == {"uniform": True, "adapt": True, "loss": False, "twin": True, "broken": False}
    assert summary["judged_by"] == "macro"


def test_with_targets_the_front_goes_by_the_target_loss(tmp_path):
    write(tmp_path, "uniform", 0, [5.0, 3.0, 2.0], targets=[4.0, 3.5, 3.0])
    write(tmp_path, "adapt", 0, [5.0, 4.0, 3.0], meta=10.0, targets=[4.0, 3.0, 1.0])
    summary = summarise(tmp_path)
    assert summary["judged_by"] == "target" and summary["arms"]["adapt"]["on_front"] is True


def test_the_front_goes_by_means_over_seeds(tmp_path):
    for seed, (plain, learnt) in enumerate([(1.0, 2.0), (4.0, 2.0)]):
        write(tmp_path, "uniform", seed, [5.0, plain])
        write(tmp_path, "adapt", seed, [5.0, learnt], meta=10.0)
    assert all(arm["on_front"] for arm in summarise(tmp_path)["arms"].values())


def test_unequal_runs_have_no_best_baseline_and_no_shares(tmp_path):
    write(tmp_path, "uniform", 0, [5.0, 3.0, 2.0])
    write(tmp_path, "adapt", 0, [5.0, 2.0, 1.0], limit=200)
    summary = summarise(tmp_path)
    assert summary["equal"] is False and summary["best_baseline"] is None
    assert summary["differs"] == ["budget (200 supervised tokens in adapt, 400 supervised tokens in uniform)"]
    assert summary["arms"]["adapt"]["tokens_to_best_of"]["uniform"] == {"macro": None, "objective": None}
    assert summary["arms"]["adapt"]["final"]["macro"]["mean"] == 1.0
    assert summary["arms"]["adapt"]["on_front"] is None
