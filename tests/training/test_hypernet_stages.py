"""Pretraining on plain text, starting from it, and teachers: of logits, and LoRA trained within the run."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file

from apportion._errors import ApportionError
from apportion.models.tagi.splitting import split_text
from apportion.plans.build import load_data, make_model
from apportion.plans.plan import plan_recipe
from apportion.plans.run import run_recipe
from apportion.tasks.encoded import IGNORED
from tests.training.hypernets import hyper, recipe
from tests.training.runs import history, ledger, weights

WORDS = ["the", "quick", "brown", "fox", "jumps", "over", "lazy", "dogs", "while", "cats", "sleep"]


@pytest.fixture
def texts(tmp_path):
    """Settings for plain texts."""
    draw = np.random.default_rng(0)
    rows = [{"text": " ".join(draw.choice(WORDS, 5))} for _ in range(80)]
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "plain.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return (
        f"tasks={{source: jsonl, path: {tmp_path / 'texts'}, max_length: 64}}",
        "kind.stage=pretrain",
    )


class TestPretraining:
    @pytest.mark.parametrize("family", ["llama", "t5"])
    def test_the_target_alone_is_supervised_and_the_whole_is_read(self, tmp_path, request, texts, family):
        start = request.getfixturevalue(family)
        done = hyper(tmp_path / "run", *texts, "budget=600", start=start)
        data = load_data(recipe(*texts, start=start))
        (task,) = data.tasks.tasks
        for index in range(len(task.train)):
            tokens, labels = task.train.example(index)
            *context, target = split_text(tokens, np.random.default_rng([0, index]))
            assert labels.tolist() == [*[IGNORED] * sum(map(len, context)), *target.tolist()]
        losses = [record["macro"] for record in history(done) if "macro" in record]
        assert losses[-1] < losses[0]
        spent = ledger(done)["accounts"]
        assert spent["generate"]["flops"] == 0 and 0 < spent["train"]["supervised"] <= 600
        assert plan_recipe(recipe(*texts, "budget=600", start=start)).accounts["train"]["flops"] == pytest.approx(
            spent["train"]["flops"], rel=0.1
        )

    def test_a_run_starts_where_it_ended(self, tmp_path, llama, texts):
        first = hyper(tmp_path / "first", *texts, "budget=300", start=llama)
        parsed = recipe(f"kind.start={first.path}", "budget=100", start=llama)
        model = make_model(parsed, load_data(parsed))
        for name, value in load_file(first.path / "model" / "model.safetensors").items():
            assert torch.equal(model.state_dict()[name], value)
        second = run_recipe(parsed, tmp_path / "second")
        assert second.summary["final"]["macro"] > 0
        assert weights(second) != weights(first)

    def test_texts_that_cannot_be_cut(self, tmp_path, llama, texts):
        (tmp_path / "texts" / "plain.jsonl").write_text("\n".join(['{"text": "a"}'] * 30))
        with pytest.raises(ApportionError):
            hyper(tmp_path / "run", *texts, start=llama)
        assert not (tmp_path / "run").exists()

    def test_it_has_no_teachers(self, llama, texts):
        with pytest.raises(ApportionError, match="plain text has no tasks to have 'teachers' for"):
            recipe(*texts, "kind.teachers={}", start=llama)


class TestLogitTeachers:
    def test_another_model_teaches_and_is_not_saved(self, tmp_path, llama):
        named = (f"kind.teacher={llama['model']['name']}", "budget=100")
        taught = hyper(tmp_path / "taught", *named, start=llama)
        itself = hyper(tmp_path / "itself", "budget=100", start=llama)
        # It is the base by another way: the same losses, and the same price.
        assert weights(taught) == weights(itself)
        assert ledger(taught)["accounts"] == ledger(itself)["accounts"]

    def test_one_of_another_kind_is_refused(self, tmp_path, llama, t5):
        with pytest.raises(ApportionError, match="a teacher needs the base model's vocabulary, and an encoder where"):
            hyper(tmp_path / "run", f"kind.teacher={t5['model']['name']}", start=llama)
        assert not (tmp_path / "run").exists()


class TestLoraTeachers:
    SETTINGS = ("budget=200", "kind.kl=0", "kind.ins=1.0")

    def test_they_are_trained_charged_and_serve_again(self, tmp_path, llama):
        settings = (*self.SETTINGS, "kind.teachers={budget: 100, groups: {copy: a, reverse: a, upper: b}}")
        done = hyper(tmp_path / "run", *settings, start=llama)
        folders = sorted((done.path / "teachers").iterdir())
        assert [folder.name for folder in folders] == ["0-a", "1-b"]
        spent = [json.loads((folder / "ledger.json").read_text())["accounts"] for folder in folders]
        for key in ("supervised", "processed", "padded", "flops"):
            total = sum(account[key] for accounts in spent for account in accounts.values())
            assert ledger(done)["accounts"]["proxy"][key] == pytest.approx(total)
        # A teacher of several tasks reads their instructions, one of a single task does not.
        tasks = [(folder / "recipe.yaml").read_text() for folder in folders]
        assert "instruction: prompt" in tasks[0] and "instruction: apart" in tasks[1]
        # Both are split as all of the hypernetwork's tasks are.
        assert all(yaml.safe_load(text)["tasks"]["split_with"] == ["copy", "reverse", "upper"] for text in tasks)

        # Their adapters serve again, to the same end and at the same charge.
        again = (*settings, f"kind.teachers.run={done.path}")
        second = hyper(tmp_path / "again", *again, start=llama)
        assert weights(second) == weights(done) and ledger(second)["accounts"] == ledger(done)["accounts"]
        alone = hyper(tmp_path / "alone", *self.SETTINGS, start=llama)
        assert weights(alone) != weights(done)
        # A budget in FLOPs pays for them.
        total = sum(account["flops"] for account in ledger(done)["accounts"].values())
        bound = hyper(tmp_path / "bound", *again, f"budget={total:.0f} FLOPs", start=llama)
        accounts = ledger(bound)["accounts"]
        assert accounts["proxy"] == ledger(done)["accounts"]["proxy"]
        assert 0.8 * total < sum(account["flops"] for account in accounts.values()) <= total
        with pytest.raises(ApportionError, match="may not reach for one example"):
            hyper(tmp_path / "poor", *again, f"budget={accounts['proxy']['flops']:.0f} FLOPs", start=llama)
        assert not (tmp_path / "poor").exists()

    def test_a_stop_between_them_changes_nothing(self, tmp_path, llama):
        settings = (*self.SETTINGS, "kind.teachers={budget: 60}", "training.lr_scheduler_type=cosine")
        whole = hyper(tmp_path / "whole", *settings, start=llama)
        (tmp_path / "broken").mkdir()
        shutil.copy(whole.path / "recipe.yaml", tmp_path / "broken")
        shutil.copytree(whole.path / "teachers", tmp_path / "broken" / "teachers")
        shutil.rmtree(tmp_path / "broken" / "teachers" / "2-upper")
        broken = hyper(tmp_path / "broken", *settings, start=llama)
        assert weights(broken) == weights(whole)
        assert ledger(broken) == ledger(whole)

    @pytest.mark.parametrize(
        ("setting", "sentence"),
        [
            ("kind.teachers={groups: {copyy: a}}", r"Unknown task 'copyy' .*did you mean 'copy'"),
            ("kind.teachers={run: nowhere}", "has no finished teacher for 'copy'"),
            ("kind.teachers={budget: lots}", "The budget 'lots' is not a budget"),
            ("kind.teachers={budget: 1}", "may not reach for one example"),
        ],
    )
    def test_mistakes_leave_nothing(self, tmp_path, llama, setting, sentence):
        with pytest.raises(ApportionError, match=sentence):
            hyper(tmp_path / "run", setting, start=llama)
        assert not (tmp_path / "run").exists()

    def test_what_cannot_have_them(self, tmp_path, llama, t5):
        with pytest.raises(ApportionError, match=r"may not reach for one example.*FLOPs are spent before training"):
            hyper(tmp_path / "run", "kind.teachers={}", "budget=1e9 FLOPs", start=llama)
        with pytest.raises(ApportionError, match="which train decoder-only models"):
            hyper(tmp_path / "run", "kind.teachers={}", start=t5)
        assert not (tmp_path / "run").exists()

    @pytest.mark.parametrize("budget", ["budget=600", "budget=3e9 FLOPs"])
    def test_they_are_planned_as_they_are_spent_and_paid_from_the_budget(self, tmp_path, llama, budget):
        settings = (*self.SETTINGS, "kind.kl=1.0", "kind.teachers={budget: 400}", budget)
        plan = plan_recipe(recipe(*settings, start=llama))
        assert [(stage["name"], stage["finished"]) for stage in plan.stages] == [
            *((f"{number}-{name}", False) for number, name in enumerate(("copy", "reverse", "upper"))),
            ("train", False),
        ]
        done = hyper(tmp_path / "run", *settings, start=llama)
        again = plan_recipe(recipe(*settings, f"kind.teachers.run={done.path}", start=llama))
        spent = ledger(done)["accounts"]
        # Finished ones are priced at what they spent.
        assert [stage["finished"] for stage in again.stages] == [True, True, True, False]
        assert sum(stage["flops"] for stage in again.stages[:3]) == pytest.approx(spent["proxy"]["flops"])
        assert {name for name, of in spent.items() if of["flops"]} == {
            name for name, of in plan.accounts.items() if of["flops"]
        }
        assert plan.accounts["proxy"]["flops"] > 0.05 * sum(of["flops"] for of in plan.accounts.values())
        for account, planned in plan.accounts.items():
            for column in ("supervised", "processed", "flops"):
                assert planned[column] == pytest.approx(spent[account][column], rel=0.1), (account, column)
        if "FLOPs" in budget:
            total = sum(account["flops"] for account in spent.values())
            assert 0.95 * 3e9 < total <= 3e9
