"""What a hypernetwork's run promises: the budget, every pass charged, the same again after a stop, its model back."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from apportion.models.tagi.prices import TagiPrices
from apportion.plans.build import load_data, make_model, make_sampler, report_batches
from apportion.plans.hypernet import load_hypernet
from apportion.plans.plan import plan_recipe
from apportion.plans.recipe import overridden
from apportion.plans.run import run_recipe
from apportion.signals.losses import task_losses
from apportion.tasks.batches import work_of
from tests.training.hypernets import SCRATCH, T5, hyper, recipe
from tests.training.runs import history, ledger

FUSED = "kind.fusion=true"
ADAPT = "mixture={type: adapt, estimator: forward, refresh: 8, examples_per_task: 1}"


def flops(run):
    return {name: account["flops"] for name, account in ledger(run)["accounts"].items()}


class TestBudget:
    @pytest.mark.parametrize("mixture", ["mixture=uniform", ADAPT])
    def test_flops_are_not_overshot_whatever_is_measured(self, tmp_path, llama, mixture):
        done = hyper(tmp_path / "run", "budget=6e8 FLOPs", mixture, FUSED, start=llama)
        spent = flops(done)
        assert 0.85 * 6e8 < sum(spent.values()) <= 6e8
        assert spent["generate"] > 0 and (spent["meta"] > 0) == (mixture != "mixture=uniform")
        assert history(done)[-1]["validation"]

    def test_tokens_are_not_overshot(self, tmp_path):
        for unit, limit in (("supervised", 33), ("processed", 177)):
            done = hyper(tmp_path / unit, f"budget={limit} {unit}", T5)
            assert 0.6 * limit < ledger(done)["accounts"]["train"][unit] <= limit

    @pytest.mark.parametrize("family", ["t5", "scratch"])
    def test_the_ledger_prices_what_was_drawn(self, tmp_path, request, family):
        start = SCRATCH if family == "scratch" else request.getfixturevalue(family)
        settings = (FUSED, "training.gradient_accumulation_steps=2")
        done, parsed = hyper(tmp_path / "run", *settings, start=start), recipe(*settings, start=start)
        data = load_data(parsed)
        prices = TagiPrices.of(make_model(parsed, data))
        sampler, price, left = make_sampler(parsed, data, parsed.method()), 0.0, 300
        while left >= 0:
            step, kept = sampler.draw(np.full(3, 1 / 3), 16), []
            for task, index in step:
                left -= int(data.tasks.tasks[task].train.supervised[index])
                if left < 0:
                    break
                kept.append((task, data.tasks.tasks[task].train.example(index)))
            kept.sort(key=lambda item: len(item[1][0]))
            for part in np.array_split(np.arange(len(kept)), 2):
                tasks, examples = zip(*(kept[k] for k in part), strict=True) if len(part) else ((), ())
                price += prices.train(work_of(examples, tasks)) if len(part) else 0.0
        spent = flops(done)
        assert spent["train"] == pytest.approx(price, rel=1e-12)
        report = report_batches(parsed, data, parsed.arguments(tmp_path))
        once = sum(prices.forward(batch.work) for batch in report)
        validations = sum(bool(record.get("validation")) for record in history(done))
        assert spent["validation"] == pytest.approx(validations * once, rel=1e-12)
        assert spent["generate"] == (0 if family == "scratch" else prices.ahead().flops)

    def test_a_plan_says_what_a_run_spends(self, tmp_path, t5):
        plan = plan_recipe(recipe(FUSED, start=t5)).accounts
        spent = flops(hyper(tmp_path / "run", FUSED, start=t5))
        for account in ("train", "validation", "generate"):
            assert plan[account]["flops"] == pytest.approx(spent[account], rel=0.1)


class TestMethods:
    SETTINGS = (
        (
            "mixture={type: loss, refresh: 5, max_cost: 0.5, examples_per_task: 2}",
            "weights={type: linupper, warmup: 2}",
        ),
        ("mixture={type: progress, refresh: 5, max_cost: 0.5, examples_per_task: 2}", "weights=bm25"),
        (ADAPT, "weights=uniform"),
        (ADAPT, "kind.memory=true"),
    )

    @pytest.mark.parametrize(("settings", "family"), zip(SETTINGS, ["llama", "t5", "llama", "t5"], strict=True))
    def test_mixtures_and_weights_run(self, tmp_path, request, settings, family):
        done = hyper(tmp_path / "run", *settings, FUSED, start=request.getfixturevalue(family))
        final = json.loads((done.path / "mixture.json").read_text())["final"]
        assert flops(done)["meta"] > 0 and ("progress" in settings[0] or max(final.values()) > 1 / 3 + 1e-4)
        losses = [record["loss"] for record in history(done) if "loss" in record]
        assert all(np.isfinite(losses)) and len(losses) > 5

    def test_a_step_is_the_same_whatever_it_is_cut_into(self, tmp_path, llama):
        # Weights by loss go by the labels' loss, as a measurement shows it, and not by what the teacher adds.
        still = tmp_path / "still"
        shutil.copytree(llama["model"]["name"], still)
        config = json.loads((still / "config.json").read_text()) | {"attention_dropout": 0.0}
        (still / "config.json").write_text(json.dumps(config))
        start = {**llama, "model": {"name": str(still)}, "kind": llama["kind"] | {"kl": 5.0}}
        common = ("weights={type: linupper, warmup: 1}", "budget=300")
        whole = hyper(tmp_path / "whole", *common, start=start)
        cut = ("training.per_device_train_batch_size=4", "training.gradient_accumulation_steps=2")
        parts = hyper(tmp_path / "parts", *common, *cut, start=start)
        theirs = load_file(parts.path / "model" / "model.safetensors")
        for name, value in load_file(whole.path / "model" / "model.safetensors").items():
            assert torch.allclose(value, theirs[name], atol=2e-5), name

    def test_a_base_in_bf16(self, tmp_path, llama):
        for name, settings in (("plain", []), ("mixed", ["training.bf16=true"])):
            done = hyper(tmp_path / name, "model.dtype=bfloat16", *settings, FUSED, "budget=50", start=llama)
            assert np.isfinite(history(done)[-1]["macro"])
            trained = load_file(done.path / "model" / "model.safetensors").values()
            assert {value.dtype for value in trained} == {torch.float32}


class TestStopping:
    def stopped(self, out, parsed, record):
        seen = []

        def show(*_):
            seen.append(1)
            if len(seen) == record:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            run_recipe(parsed, out, show=show)
        assert not (out / "summary.json").exists()

    @pytest.mark.parametrize("family", ["llama", "scratch"])
    def test_a_run_goes_on_to_the_byte(self, tmp_path, request, family):
        start = overridden(SCRATCH, [T5]) if family == "scratch" else request.getfixturevalue(family)
        settings = (FUSED, "validation.every=25%", "mixture=progress", "training.lr_scheduler_type=cosine")
        parsed = recipe(*settings, start=start)
        whole = run_recipe(parsed, tmp_path / "whole")
        records = len(history(whole))
        self.stopped(tmp_path / "broken", parsed, records // 2)
        broken = run_recipe(parsed, tmp_path / "broken")
        for name in ("ledger.json", "mixture.json", "recipe.yaml", "model/model.safetensors"):
            assert (broken.path / name).read_bytes() == (whole.path / name).read_bytes(), name
        untimed = [[{**record, "seconds": 0} for record in history(run)] for run in (whole, broken)]
        assert untimed[0] == untimed[1]
        assert {**broken.summary, "seconds": 0} == {**whole.summary, "seconds": 0}


class TestFolder:
    @pytest.mark.parametrize(
        ("family", "settings"),
        [
            ("scratch", (T5, "kind.memory=true")),
            ("llama", ("kind.base=norms_and_embeddings", "kind.head=diagonal")),
            ("t5", (FUSED, "kind.memory=true")),
            ("llama", ("kind.base=all", "kind.kl=0", "kind.head=none", FUSED)),
        ],
    )
    def test_its_model_measures_what_the_run_reported(self, tmp_path, request, family, settings):
        start = SCRATCH if family == "scratch" else request.getfixturevalue(family)
        done = hyper(tmp_path / "run", *settings, start=start)
        self.measures(done, recipe(*settings, start=start))
        frozen = recipe(*settings, start=start).model_kind().frozen
        assert (done.path / "model" / "base").exists() == (not frozen)

    def measures(self, done, parsed):
        model, _, _ = load_hypernet(done.path)
        data = load_data(parsed)
        model.reader.instruct(make_model(parsed, data, meta=True).reader.instructions)
        batches = report_batches(parsed, data, parsed.arguments(done.path))
        found = task_losses(model, batches, len(data.tasks), "cpu")
        assert float(found.mean()) == pytest.approx(done.summary["final"]["macro"], rel=1e-6)

    def test_a_run_that_starts_from_a_trained_base_keeps_it(self, tmp_path, llama):
        first = hyper(tmp_path / "first", "kind.base=all", "kind.kl=0", start=llama)
        settings = (f"kind.start={first.path}", "budget=200")
        second = hyper(tmp_path / "second", *settings, start=llama)
        shutil.rmtree(first.path)
        self.measures(second, recipe("budget=200", start=llama))
        assert second.summary["parameters"]["trainable"] < second.summary["parameters"]["total"]
