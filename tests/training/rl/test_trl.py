"""What is leaned on in TRL, and that on one budget with one answer its own loss comes out."""

import inspect

import numpy as np
import pytest
import torch
from datasets import Dataset
from transformers import PreTrainedTokenizerFast
from trl import GRPOConfig, GRPOTrainer

from apportion.budget import Budget, Ledger
from apportion.models.flops import ModelFlops
from apportion.training.part import Parts
from apportion.training.rl.advantages import brpo
from apportion.training.rl.traces import rewards_of
from apportion.training.rl.trainer import Reinforcer
from apportion.training.rl.tree import collate, tree
from tests.training.rl.made import model, seeded, trace

BUDGET, GROUP = (8,), 4


def tokenizer():
    from tokenizers import Tokenizer, models

    vocabulary = {chr(97 + i): i for i in range(24)}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="a"))
    return PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="a", eos_token="b")


def arguments(folder, **values):
    return GRPOConfig(
        output_dir=str(folder),
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        report_to="none",
        per_device_train_batch_size=2 * GROUP,
        num_generations=GROUP,
        max_completion_length=14,
        loss_type="dr_grpo",
        scale_rewards="none",
        beta=0.0,
        max_steps=3,
        disable_tqdm=True,
        learning_rate=1e-3,
        **values,
    )


class Record:
    step, due, log = -1, False, None

    def finish(self, net):
        """Nothing is measured here."""


def traces():
    rng = seeded()
    made = [trace(rng, BUDGET, 1) for _ in range(2)]
    groups = [[trace(rng, BUDGET, 1) for _ in range(GROUP)] for _ in made]
    return [
        trace_of.__class__(**{**vars(trace_of), "problem": first.problem})
        for first, group in zip(made, groups, strict=True)
        for trace_of in group
    ]


def rows():
    made = traces()
    rewards, ends = rewards_of(made, GROUP)
    think, summary = brpo(rewards, np.ones(1), ends, "group")
    return [
        tree(one, BUDGET, a, b) for one, a, b in zip(made, think.reshape(-1, 1), summary.reshape(-1, 1, 1), strict=True)
    ]


def reinforcer(net, folder, roll, **values):
    ledger = Ledger(Budget("generated", 1000))
    return Reinforcer(
        net,
        arguments(folder, **values),
        tokenizer(),
        roll=roll,
        prices=ModelFlops.of(net),
        ledger=ledger,
        parts=Parts([]),
        recorder=Record(),
        checkpoints=None,
    )


def gradient(net):
    return torch.cat([p.grad.flatten() for p in net.parameters()])


def test_one_budget_and_one_answer_is_trls_own_loss(tmp_path):
    batch = collate(rows(), 0)
    found = {}
    for name, made in (
        ("ours", lambda net: reinforcer(net, tmp_path, lambda *_: [])),
        (
            "theirs",
            lambda net: GRPOTrainer(
                model=net,
                args=arguments(tmp_path),
                processing_class=tokenizer(),
                reward_funcs=lambda completions, **_: [0.0] * len(completions),
                train_dataset=Dataset.from_dict({"prompt": ["a"] * 8}),
            ),
        ),
    ):
        net = model()
        trainer = made(net)
        trainer.current_gradient_accumulation_steps = 1
        net.train()
        inputs = dict(batch)
        if name == "theirs":
            # All tokens of a row count alike: its one advantage, as TRL's own is.
            rewards, _ = rewards_of(traces(), GROUP)
            alone = torch.from_numpy(rewards[..., 0, 0] - rewards[..., 0, 0].mean(1, keepdims=True)).flatten().float()
            inputs = {key: value for key, value in batch.items() if key not in ("position_ids", "seen")}
            inputs["advantages"] = alone
        loss = trainer.compute_loss(net, inputs)
        loss.backward()
        found[name] = (loss.detach(), gradient(net))
    torch.testing.assert_close(found["ours"][0], found["theirs"][0], atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(found["ours"][1], found["theirs"][1], atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("parts", [1, 3])
def test_a_step_is_the_same_in_micro_batches(tmp_path, parts):
    steps = []

    def roll(net, step):
        steps.append(step)
        return rows() if step < 2 else []

    net = model()
    trainer = reinforcer(net, tmp_path, roll, gradient_accumulation_steps=parts)
    trainer.train()
    assert steps == [0, 1, 2]
    weights = torch.cat([p.detach().flatten() for p in net.parameters()])
    plain = model()
    reinforcer(plain, tmp_path, lambda _, step: rows() if step < 2 else []).train()
    torch.testing.assert_close(
        weights, torch.cat([p.detach().flatten() for p in plain.parameters()]), atol=2e-5, rtol=0
    )
    untouched = torch.cat([p.detach().flatten() for p in model().parameters()])
    assert (weights - untouched).abs().max() > 1e-3


def test_what_is_leaned_on_is_there():
    loss = list(inspect.signature(GRPOTrainer._compute_loss).parameters)
    assert loss == ["self", "model", "inputs"]
    named = list(inspect.signature(GRPOTrainer._get_per_token_logps_and_entropies).parameters)
    assert named[:5] == ["self", "model", "input_ids", "attention_mask", "logits_to_keep"]
    settings = {"num_generations", "max_completion_length", "loss_type", "scale_rewards", "beta", "temperature"}
    assert settings <= set(GRPOConfig.__dataclass_fields__)
