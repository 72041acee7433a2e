"""What adapters from instructions cost: writing one, a batch of tasks beside a loop over them, and a training step.

    python benchmarks/hypernet.py [--json] [--rounds 3] [--device cpu]

A frozen Llama of about 10M parameters, 16 tasks with instructions of 48 tokens, examples of 48 + 16 tokens, rank 8 on
queries and values; bf16 on a GPU. Every round times each side once, in turn; a ratio is the median over rounds of seconds
in the same round: CPU seconds where torch has one thread, so that other work on the machine counts for little. Milliseconds
are a clock's, medians. Beside each ratio stands its limit worked out beforehand, from FLOPs alone.

An adapter is written from an instruction's text: tokenised, encoded, generated; as a file, saved for PEFT besides. A batch
is one example of each of 16 tasks, instructions read and adapters written anew, answered in 16 tokens: each token reads the
weights once for the whole batch, where a loop reads them once for each task. A forward pass alone makes the same products
either way, so that only overheads and the width of its matrices can gain. A training step is forward, backward and optimizer
on 32 examples, over multi-task LoRA of the same rank that reads the instruction before each input, or the input alone; the
base being frozen, TAGI has read its instructions before. With its KL to a self-teacher it makes a forward pass over
instruction and input besides.
"""

from __future__ import annotations

import argparse
import gc
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from apportion.models.flops import ModelFlops
from apportion.models.loading import build_model, load_tokenizer
from apportion.models.specs import LoraSpec, ModelSpec
from apportion.models.tagi.adapting import TagiModel
from apportion.models.tagi.building import encode_instructions
from apportion.models.tagi.export import adapter, write_adapter
from apportion.models.tagi.kind import Tagi
from apportion.models.tagi.prices import TagiPrices
from apportion.signals.losses import example_losses
from apportion.tasks import TasksSpec
from apportion.tasks.batches import Batch, collate

TASKS, ROWS, INSTRUCTION, INPUT, OUTPUT, RANK, LR = 16, 32, 48, 48, 16, 8, 1e-3
TEXT = "Write the words in reverse, then in upper case."
CONFIG = {
    "model_type": "llama",
    "vocab_size": 4096,
    "hidden_size": 320,
    "intermediate_size": 864,
    "num_hidden_layers": 7,
    "num_attention_heads": 5,
    "num_key_value_heads": 5,
    "tie_word_embeddings": True,
}
SPEC = ModelSpec.model_validate({"config": CONFIG, "tokenizer": {"train": "character"}})
INSTRUCTIONS = [torch.from_numpy(np.random.default_rng(task).integers(3, 4096, INSTRUCTION)) for task in range(TASKS)]
"""Tokens of instruction, input and output, and instances, of the table of relative FLOPs."""


def batch(tasks: list[int], device: str, instructed: bool = False) -> Batch:
    """One example of each of these tasks, behind its instruction or alone."""
    examples = []
    for row, task in enumerate(tasks):
        ids = np.random.default_rng([1, row]).integers(3, 4096, INPUT + OUTPUT)
        before = INSTRUCTIONS[task].numpy() if instructed else ids[:0]
        ids = np.concatenate([before, ids])
        labels = np.where(np.arange(len(ids)) < len(ids) - OUTPUT, -100, ids)
        examples.append((ids, labels))
    return collate(examples, tasks, 0).to(device)


def autocast(device: str) -> torch.autocast:
    return torch.autocast(device, torch.bfloat16, enabled=device == "cuda")


def make_tagi(kl: float, device: str) -> TagiModel:
    spec = Tagi.model_validate({"r": RANK, "kl": kl})
    return TagiModel(build_model(SPEC, None, lora=None, seed=0), spec, INSTRUCTIONS).to(device)


class Training:
    """A side of the training steps: a model, its optimizer, and the batch it learns."""

    def __init__(self, device: str, instructed: bool, kl: float | None = None) -> None:
        self.device = device
        lora = LoraSpec(r=RANK, alpha=2 * RANK, target_modules=["q_proj", "v_proj"])
        peer = build_model(SPEC, None, lora=lora, seed=0)
        self.model: Any = (make_tagi(kl, device) if kl is not None else peer.to(device)).train()
        prices = TagiPrices.of(self.model) if kl is not None else ModelFlops.of(self.model)
        self.batch = batch([row % TASKS for row in range(ROWS)], device, instructed)
        self.flops = prices.train(self.batch.work)
        self.optimizer = torch.optim.AdamW([p for p in self.model.parameters() if p.requires_grad], lr=LR, fused=True)
        self.step()  # reads the instructions, and makes the optimizer's state

    def step(self) -> None:
        with autocast(self.device):
            loss = example_losses(self.model, self.batch).mean()
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()


class Answering:
    """A hypernetwork, and 16 tasks' examples in one batch or one by one."""

    def __init__(self, device: str) -> None:
        self.device = device
        self.model = make_tagi(0.0, device).eval()
        self.batch = [batch(list(range(TASKS)), device)]
        self.loop = [batch([task], device) for task in range(TASKS)]

    def forward(self, batches: list[Batch]) -> None:
        self.model.reader._read.clear()
        with torch.no_grad(), autocast(self.device):
            for each in batches:
                self.model(each)

    def generate(self, batches: list[Batch]) -> None:
        self.model.reader._read.clear()
        with autocast(self.device):
            for each in batches:
                ids, mask = each.input_ids[:, :INPUT], each.attention_mask[:, :INPUT]
                self.model.generate(
                    ids, mask, each.tasks, max_new_tokens=OUTPUT, min_new_tokens=OUTPUT, do_sample=False
                )


def seconds(work: Callable[[], object], clock: Callable[[], float] | None = None) -> float:
    gc.collect()
    on_gpu = torch.cuda.is_available()
    alone = not on_gpu and torch.get_num_threads() == 1
    clock = clock or (time.process_time if alone else time.perf_counter)
    if on_gpu:
        torch.cuda.synchronize()
    started = clock()
    work()
    if on_gpu:
        torch.cuda.synchronize()
    return clock() - started


def writing_ms(device: str, times: int = 21) -> dict[str, float]:
    """Milliseconds from an instruction's text to its adapter, and to the adapter's folder."""
    tokenizer = load_tokenizer(SPEC, TasksSpec(source="playground"))
    model = make_tagi(0.0, device).eval()

    def write(out: Path | None) -> None:
        (ids,) = encode_instructions({"the benchmark": TEXT}, tokenizer, model.config)
        with torch.no_grad(), autocast(device):
            factors = adapter(model, ids)
        if out is not None:
            write_adapter(model, factors, "base", out)

    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder) / "warm")
        plain = [seconds(partial(write, None), time.perf_counter) for _ in range(times)]
        filed = [seconds(partial(write, Path(folder) / str(k)), time.perf_counter) for k in range(times)]
    return {"adapter_ms": 1000 * statistics.median(plain), "adapter_file_ms": 1000 * statistics.median(filed)}


def ratios(rounds: int, device: str) -> dict[str, float]:
    answering = Answering(device)
    sides = {
        "lora": Training(device, True),
        "input_only": Training(device, False),
        "tagi": Training(device, False, kl=0.0),
        "kl": Training(device, False, kl=5.0),
    }
    work: dict[str, Callable[[], object]] = {name: side.step for name, side in sides.items()}
    for name, run in (("forward", answering.forward), ("generate", answering.generate)):
        work |= {f"{name}_loop": partial(run, answering.loop), f"{name}_batch": partial(run, answering.batch)}
        run(answering.batch)
    taken: dict[str, list[float]] = {name: [] for name in work}
    for turn in range(rounds):
        # The order is reversed every other time: no place in it is an advantage.
        for name in reversed(work) if turn % 2 else work:
            taken[name].append(seconds(work[name]))

    def over(name: str, other: str) -> float:
        return statistics.median(a / b for a, b in zip(taken[name], taken[other], strict=True))

    found = {
        "batch_of_tasks_over_loop": over("generate_loop", "generate_batch"),
        "batch_of_tasks_over_loop_forward": over("forward_loop", "forward_batch"),
    }
    for name, with_kl in (("tagi", ""), ("kl", "_kl")):
        for other, reading in (("lora", ""), ("input_only", "_input_only")):
            key = f"training_step_ratio{with_kl}{reading}"
            found |= {key: over(name, other), f"{key}_expected": sides[name].flops / sides[other].flops}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options = parser.parse_args()
    found = {
        key: round(value, 3)
        for key, value in {**writing_ms(options.device), **ratios(options.rounds, options.device)}.items()
    }
    if options.json:
        print(json.dumps(found))
        return
    adapter_ms, file_ms = found["adapter_ms"], found["adapter_file_ms"]
    print(f"an adapter in {adapter_ms:.1f} ms, in a folder for PEFT in {file_ms:.1f} ms ({options.device})")
    print(f"{'':<46}{'measured':>9}{'by FLOPs':>9}")
    rows = {
        "answering 16 tasks one by one over a batch": "batch_of_tasks_over_loop",
        "  the same without generating, a forward pass": "batch_of_tasks_over_loop_forward",
        "a training step over LoRA's": "training_step_ratio",
        "  over LoRA's without instructions": "training_step_ratio_input_only",
        "  with KL to a self-teacher": "training_step_ratio_kl",
        "  with KL, over LoRA's without instructions": "training_step_ratio_kl_input_only",
    }
    for label, key in rows.items():
        print(f"{label:<46}{found[key]:>9.2f}{found.get(f'{key}_expected', 1.0):>9.2f}")


if __name__ == "__main__":
    main()
