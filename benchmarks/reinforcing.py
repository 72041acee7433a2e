"""Steps of reinforcement beside TRL's own, a part of `benchmarks/thinking.py`: on the same model, prompts and lengths.

Seconds are those of the processor, so that what else runs on the machine counts less.
"""

from __future__ import annotations

import tempfile
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from tokenizers import Tokenizer, models
from transformers import LlamaConfig, LlamaForCausalLM, LogitsProcessorList, PreTrainedTokenizerFast, TrainerCallback
from transformers.trainer_callback import PrinterCallback
from trl import GRPOConfig, GRPOTrainer

from apportion.budget import Budget, Ledger, ThinkingBudget
from apportion.models.flops import ModelFlops
from apportion.thinking.forcer import ThinkingForcer
from apportion.thinking.rewards import exact_answer
from apportion.thinking.tags import ThinkingTags
from apportion.training.part import Kept, Parts
from apportion.training.rl.advantages import brpo as advantages_of
from apportion.training.rl.advantages import prior_of
from apportion.training.rl.recorder import RlRecorder
from apportion.training.rl.rolling import Roller
from apportion.training.rl.rollouts import Rollouts
from apportion.training.rl.spec import RlSpec
from apportion.training.rl.traces import Problem
from apportion.training.rl.trainer import Reinforcer
from apportion.training.sampler import TaskSampler

PROMPTS, GROUP, MOST, ANSWER, PROMPT = 8, 8, 48, 4, 12
WORDS = ["<pad>", "<eos>", "<think>", "</think>", *"0123456789+-*;=?"]


class Clock(TrainerCallback):
    """Seconds of each step but the first, of one thread's processor."""

    def __init__(self) -> None:
        self.at: list[float] = []

    def on_step_end(self, *args: Any, **kwargs: Any) -> None:
        """Note the time."""
        self.at.append(time.process_time())

    @property
    def steps(self) -> list[float]:
        """Seconds from each end to the next."""
        return [after - before for before, after in pairwise(self.at)]


def words() -> PreTrainedTokenizerFast:
    """Return a tokenizer of twenty words."""
    backend = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<pad>"))
    return PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="<pad>", eos_token="<eos>")


def untrained() -> LlamaForCausalLM:
    """Return a model of 0.8M parameters that never ends by itself, so that all roll-outs are as long."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(WORDS),
        hidden_size=128,
        intermediate_size=344,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=256,
        pad_token_id=0,
        bos_token_id=None,
        eos_token_id=1,
    )
    model = LlamaForCausalLM(config)
    model.generation_config.suppress_tokens = [0, 1, 3]
    return model


def problems() -> list[Problem]:
    """Return 64 problems of random words."""
    rng = np.random.default_rng(0)
    return [
        Problem("t", {"prompt": ""}, (*(int(word) for word in rng.integers(4, len(WORDS), PROMPT)), 2), ("1",))
        for _ in range(64)
    ]


def arguments(folder: str, steps: int) -> GRPOConfig:
    """Return TRL's arguments, of which the learning rate is nothing: every step is the same work."""
    return GRPOConfig(
        output_dir=folder,
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        report_to="none",
        per_device_train_batch_size=PROMPTS * GROUP,
        num_generations=GROUP,
        max_completion_length=MOST + 1 + ANSWER,
        loss_type="dr_grpo",
        scale_rewards="none",
        beta=0.0,
        max_steps=steps,
        disable_tqdm=True,
        learning_rate=0.0,
        save_strategy="no",
        logging_strategy="no",
    )


def house(spec: RlSpec, steps: int) -> tuple[list[float], float]:
    """Return the seconds of steps of ours, and the generated tokens of one."""
    tokenizer, model, tags = words(), untrained(), ThinkingTags()
    ledger, made = Ledger(Budget("generated", 10**12)), problems()
    roller = Roller(tokenizer, ModelFlops.of(model), tags, tags.ids(tokenizer), spec)
    sampler = TaskSampler([len(made)], [np.ones(len(made), np.int64)], seed=0)
    rollouts = Rollouts(roller, [made], made[:1], sampler=sampler, p=np.ones(1), ledger=ledger, seed=0)
    lines: list[dict[str, Any]] = []
    recorder = RlRecorder(rollouts, every=1.0, ledger=ledger, tasks=["t"], append=lambda _, line: lines.append(line))
    clock = Clock()
    with tempfile.TemporaryDirectory() as folder:
        trainer = Reinforcer(
            model,
            arguments(folder, 10**6),
            tokenizer,
            roll=lambda net, step: rollouts.roll(net, step) if step < steps else [],
            prices=roller.prices,
            ledger=ledger,
            parts=Parts([Kept("ledger", ledger), Kept("sampler", sampler), recorder]),
            recorder=recorder,
            checkpoints=Path(folder),
        )
        trainer.add_callback(clock)
        trainer.train()
    return clock.steps, ledger.spent("generate").generated / steps


def plain(steps: int) -> tuple[list[float], float]:
    """Return the seconds of steps of TRL's own trainer with the same processor in its roll-outs, and a step's tokens."""
    tokenizer, model, ids = words(), untrained(), ThinkingTags().ids(words())
    clock, made, written = Clock(), problems(), 0

    def roll(prompts: list[str], trainer: Any) -> dict[str, Any]:
        nonlocal written
        given = [list(made[k // GROUP].ids) for k in range(len(prompts))]
        texts = torch.tensor(given)
        budgets = [ThinkingBudget(most=MOST)] * len(given)
        forcer = ThinkingForcer(ids, texts.shape[1], budgets, ends=[1], sampling=True)
        trainer.model.eval()
        with torch.no_grad():
            out = trainer.model.generate(
                input_ids=texts,
                attention_mask=torch.ones_like(texts),
                do_sample=True,
                top_k=0,
                pad_token_id=0,
                max_new_tokens=MOST + 1 + ANSWER,
                logits_processor=LogitsProcessorList([forcer]),
            )
        trainer.model.train()
        new = out[:, texts.shape[1] :].tolist()
        written += sum(map(len, new))
        mask = [[int(place != MOST) for place in range(len(row))] for row in new]
        return {"prompt_ids": given, "completion_ids": new, "logprobs": None, "env_mask": mask}

    rows = Dataset.from_dict({"prompt": ["1"] * 1024, "reference": ["1"] * 1024})
    with tempfile.TemporaryDirectory() as folder:
        trainer = GRPOTrainer(
            model=model,
            args=arguments(folder, steps),
            processing_class=tokenizer,
            reward_funcs=exact_answer(ThinkingTags()),
            train_dataset=rows,
            rollout_func=roll,
        )
        trainer.remove_callback(PrinterCallback)
        trainer.add_callback(clock)
        trainer.train()
    return clock.steps, written / steps


def steps(rounds: int) -> dict[str, Any]:
    """Time steps of the two in turns, and of BRPO at four budgets with four answers each."""
    grpo = RlSpec(type="grpo", start="", budgets=[MOST], rollouts=GROUP, prompts=PROMPTS, answer=ANSWER)
    brpo = RlSpec(start="", budgets=[8, 16, 32, MOST], rollouts=GROUP, prompts=PROMPTS, answer=ANSWER)
    arms = {"trl": lambda: plain(4), "grpo": lambda: house(grpo, 4), "brpo": lambda: house(brpo, 3)}
    seconds: dict[str, list[float]] = {name: [] for name in arms}
    tokens: dict[str, float] = {}
    for _ in range(rounds):
        for name, made in arms.items():
            took, tokens[name] = made()
            seconds[name] += took
    assert tokens["trl"] == tokens["grpo"], "both write as much"
    middle = {name: float(np.median(times)) for name, times in seconds.items()}
    a_token = {name: middle[name] / tokens[name] for name in middle}
    return {
        "ledger_overhead": round(middle["grpo"] / middle["trl"], 3),
        "brpo_over_grpo_seconds": round(a_token["brpo"] / a_token["grpo"], 3),
        "brpo_step_over_grpo_step": round(middle["brpo"] / middle["grpo"], 3),
        "tokens_a_step": {name: round(count) for name, count in tokens.items()},
        "seconds_a_step": {name: round(value, 3) for name, value in middle.items()},
    }


def advantages(rounds: int) -> dict[str, Any]:
    """Time the advantages of 64 roll-outs at four budgets with four answers each."""
    rng = np.random.default_rng(0)
    rewards, ends, prior = rng.random((8, 8, 4, 4)), rng.integers(0, 4, (8, 8)), prior_of("uniform", [8, 16, 32, 48])
    took = []
    for _ in range(20 * rounds):
        started = time.perf_counter()
        advantages_of(rewards, prior, ends)
        took.append(1000 * (time.perf_counter() - started))
    return {"advantages_ms": round(float(np.median(took)), 3)}
