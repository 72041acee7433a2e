"""What the meta-gradient costs beside a plain training step: three estimators, and the same by torchopt, in one run.

    python benchmarks/meta_gradient.py [--json] [--rounds 5] [--scaling] [--plot FILE]

A Llama of about 10M parameters, 20 tasks, 32 x 128 tokens, AdamW, full fine-tuning and LoRA r=16; bf16 on a GPU. Every
round times each side once, in turn; a ratio is the median over rounds of seconds over the plain step's in the same round:
CPU seconds where torch has one thread (OMP_NUM_THREADS=1), so that other work on the machine counts for little.
Memory is what training adds to the process's peak (to the allocator's, on a GPU), each side in a child process. Limits
worked out beforehand: the read is one more matmul beside three, 4/3 of a full step; for LoRA 1 + N_lora / (2N + 3 N_lora).
`run_time_ratio` prices a whole run at default settings, from the parts measured here: plain steps, steps that read, and
the validation passes that give the direction. The cosine is taken at the default learning rate, Trainer's 5e-5, and at
1e-3, where a small model from scratch is trained. ``--scaling`` repeats the read for other numbers of tasks and widths.
"""

from __future__ import annotations

import argparse
import gc
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchopt
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import TrainingArguments

from apportion.mixtures.adapt import Adapt
from apportion.models.loading import build_model
from apportion.models.specs import LoraSpec, ModelSpec
from apportion.objectives import BoundObjective, Worst
from apportion.objectives.worst import smooth_worst
from apportion.signals.in_run import InRunRead
from apportion.signals.in_run_alignment import reads_within
from apportion.signals.inner_step import of_optimizer
from apportion.signals.losses import example_losses
from apportion.signals.meta_gradient import direction, forward, train_losses, trainable, unrolled, validation_losses
from apportion.tasks.batches import Batch, collate

ROWS, LENGTH, LR = 32, 128, 1e-3
SIDES = ("in_run", "forward", "unrolled", "torchopt")
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def batch(seed: int, n_tasks: int, rows: int, vocab: int) -> Batch:
    """Examples that can be learnt: task i counts up by i + 1 from a random token; the second half is supervised."""
    rng = np.random.default_rng(seed)
    examples = []
    for row in range(rows):
        ids = 3 + (rng.integers(vocab) + (row % n_tasks + 1) * np.arange(LENGTH)) % (vocab - 3)
        labels = np.where(np.arange(LENGTH) < LENGTH // 2, -100, ids)
        examples.append((ids, labels))
    return collate(examples, [k % n_tasks for k in range(rows)], 0).to(DEVICE)


def worst(n_tasks: int) -> BoundObjective:
    """The paper's objective at tau 1, all tasks alike."""
    return Worst().at({"importance": torch.ones(n_tasks)})


class Bench:
    """One model with a warmed-up optimizer, and one method a side that does what is timed."""

    def __init__(self, lora: bool, n_tasks: int = 20, hidden: int = 320, warm_up: int = 3, lr: float = LR) -> None:
        torch.manual_seed(0)
        config = {
            "model_type": "llama",
            "vocab_size": 4096,
            "hidden_size": hidden,
            "intermediate_size": hidden * 27 // 10 // 8 * 8,
            "num_hidden_layers": 7,
            "num_attention_heads": hidden // 32 // 2,
            "num_key_value_heads": hidden // 32 // 2,
            "tie_word_embeddings": True,
        }
        spec = ModelSpec(config=config, tokenizer="none")
        self.model: Any = build_model(spec, None, lora=LoraSpec(r=16) if lora else None, seed=0).to(DEVICE)
        self.model.train()
        self.n_tasks = n_tasks
        self.lr = lr
        self.optimizer = torch.optim.AdamW([p for p in self.model.parameters() if p.requires_grad], lr=lr, fused=True)
        self.train = batch(0, n_tasks, ROWS, 4096)
        self.every_task = batch(1, n_tasks, max(ROWS, n_tasks), 4096)
        self.validation = batch(2, n_tasks, max(ROWS, n_tasks), 4096)
        self.p = torch.full((n_tasks,), 1 / n_tasks, device=DEVICE)
        self.reader = InRunRead(self.model)
        # Adam's second moment needs some steps before a direction through it means anything.
        for step in range(warm_up):
            self.train = batch(100 + step, n_tasks, ROWS, 4096)
            self.plain()
        self.reader.set_direction(self.take_direction())

    def _autocast(self) -> torch.autocast:
        return torch.autocast(DEVICE, torch.bfloat16, enabled=DEVICE == "cuda")

    def inner(self) -> Any:
        return of_optimizer(self.optimizer, {p: n for n, p in self.model.named_parameters()}, self.lr)

    def take_direction(self) -> dict[str, torch.Tensor]:
        with self._autocast():
            u, _ = direction(self.model, [self.validation], self.n_tasks, worst(self.n_tasks))
        inner = self.inner()
        return {name: value * inner.preconditioner(name, value) for name, value in u.items()}

    def plain(self) -> None:
        with self._autocast():
            loss = example_losses(self.model, self.train).mean()
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()

    def in_run(self) -> torch.Tensor:
        with self.reader.reading(self.train, torch.device(DEVICE)) as scores:
            self.plain()
        return scores

    def forward(self) -> torch.Tensor:
        with self._autocast():
            return forward(self.model, self.every_task, self.validation, self.p, self.inner(), worst(self.n_tasks))

    def unrolled(self) -> torch.Tensor:
        with self._autocast():
            return unrolled(self.model, self.every_task, self.validation, self.p, self.inner(), worst(self.n_tasks))

    def torchopt(self) -> torch.Tensor:
        """The same unrolled step through torchopt's differentiable Adam, its moments starting at zero."""
        theta = {name: p.detach().requires_grad_() for name, p in trainable(self.model).items()}
        share = self.p.clone().requires_grad_()
        adam = torchopt.adam(lr=LR)
        state = adam.init(theta)
        with self._autocast(), sdpa_kernel(SDPBackend.MATH):
            loss = (share * train_losses(self.model, self.every_task, theta, self.n_tasks)).sum()
            gradients = torch.autograd.grad(loss, list(theta.values()), create_graph=True)
            updates, _ = adam.update(dict(zip(theta, gradients, strict=True)), state, inplace=False)
            moved = torchopt.apply_updates(theta, updates, inplace=False)
            objective = smooth_worst(validation_losses(self.model, self.validation, moved, self.n_tasks), 1.0)
            (slope,) = torch.autograd.grad(objective, share)
        return -slope


def seconds(work: Callable[[], object]) -> float:
    gc.collect()
    clock = time.process_time if DEVICE == "cpu" and torch.get_num_threads() == 1 else time.perf_counter
    if DEVICE == "cuda":
        torch.cuda.synchronize()
    started = clock()
    work()
    if DEVICE == "cuda":
        torch.cuda.synchronize()
    return clock() - started


def cosine(lora: bool, lr: float, warm_up: int = 20) -> float:
    """Cosine of the in-run estimate at theta with the exact one, their means taken out, after ``warm_up`` steps."""
    twin = Bench(lora, warm_up=warm_up, lr=lr)
    inner = twin.inner()
    exact = unrolled(twin.model, twin.every_task, twin.validation, twin.p, inner, worst(twin.n_tasks))
    # The derivative of the step actually taken stands in for the preconditioner: what remains is theta against theta'.
    u, _ = direction(twin.model.eval(), [twin.validation], twin.n_tasks, worst(twin.n_tasks))
    gradients = torch.autograd.grad(
        (twin.p * train_losses(twin.model, twin.every_task, trainable(twin.model), twin.n_tasks)).sum(),
        list(trainable(twin.model).values()),
        materialize_grads=True,
    )
    reader = InRunRead(twin.model)
    reader.set_direction(
        {n: u[n] * inner.derivative(n, g) for n, g in zip(trainable(twin.model), gradients, strict=True)}
    )
    with reader.reading(twin.every_task, torch.device(DEVICE)) as scores:
        example_losses(twin.model, twin.every_task).mean().backward()
    by_task = torch.zeros_like(exact).index_add(0, twin.every_task.tasks, scores.to(exact.dtype))
    counts = torch.zeros_like(exact).index_add(0, twin.every_task.tasks, torch.ones_like(scores, dtype=exact.dtype))
    read = by_task / counts
    return float(torch.nn.functional.cosine_similarity(read - read.mean(), exact - exact.mean(), dim=0))


def whole_run(bench: Bench, plain: float, ratio: float) -> float:
    """Seconds a step of a run at default settings over plain training's."""
    method = Adapt()
    rows = bench.n_tasks * method.examples_per_task
    bench.validation = batch(3, bench.n_tasks, rows, 4096)
    taken = statistics.median(seconds(bench.take_direction) for _ in range(3))
    reads = reads_within(method.refresh, method.refresh, method.reads) / method.refresh
    return 1 + reads * (ratio - 1) + taken / plain / method.refresh


def measure(lora: bool, rounds: int, n_tasks: int = 20, hidden: int = 320, sides: tuple[str, ...] = SIDES) -> Any:
    """Time every side in turn, ``rounds`` times."""
    bench = Bench(lora, n_tasks, hidden)
    for side in sides:
        getattr(bench, side)()
    ratios: dict[str, list[float]] = {side: [] for side in sides}
    plains = []
    for _ in range(rounds):
        plain = seconds(bench.plain)
        plains.append(plain)
        for side in sides:
            ratios[side].append(seconds(getattr(bench, side)) / plain)
    result = {f"{side}_ratio".replace("in_run", "in_run_step"): statistics.median(r) for side, r in ratios.items()}
    if sides == SIDES:
        result["cosine_in_run_vs_unrolled"] = cosine(lora, TrainingArguments().learning_rate)
        result["cosine_at_1e-3"] = cosine(lora, LR)
        result["run_time_ratio"] = whole_run(bench, statistics.median(plains), result["in_run_step_ratio"])
    return result


def peak(lora: bool, side: str) -> float:
    """Return the peak megabytes that a side adds to a warmed-up model, in a child process."""
    code = f"import meta_gradient; print(meta_gradient.added_memory({lora}, {side!r}))"
    folder = str(Path(__file__).parent)
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=True)
    return float(done.stdout.strip().splitlines()[-1])


def added_memory(lora: bool, side: str) -> float:
    """Run one side alone and return the peak it reached above the libraries' own size, in megabytes."""
    before = _high_water()
    bench = Bench.__new__(Bench)
    if DEVICE == "cuda":
        torch.cuda.reset_peak_memory_stats()
    bench.__init__(lora)
    getattr(bench, side)()
    return torch.cuda.max_memory_allocated() / 2**20 if DEVICE == "cuda" else _high_water() - before


def _high_water() -> float:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


def scaling(rounds: int) -> list[dict[str, Any]]:
    """How the in-run read's price grows with tasks and with the model."""
    cases = [(tasks, 320) for tasks in (5, 20, 80, 320)] + [(20, 128), (20, 512)]
    return [
        {"tasks": n, "hidden": h, **measure(False, rounds, n_tasks=n, hidden=h, sides=("in_run",))} for n, h in cases
    ]


def plot(rows: list[dict[str, Any]], file: Path) -> None:
    """Draw a reading step's price over tasks and over the model's width, beside its limit of 4/3."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(7, 2.6), sharey=True, layout="constrained")
    for axes, key, fixed in ((left, "tasks", "hidden"), (right, "hidden", "tasks")):
        middle = {"hidden": 320, "tasks": 20}[fixed]
        points = sorted((row[key], row["in_run_step_ratio"]) for row in rows if row[fixed] == middle)
        axes.plot([str(at) for at, _ in points], [ratio for _, ratio in points], "o-", color="#0b6e99")
        axes.axhline(4 / 3, color="#999", lw=1, ls="--")
        axes.set_xlabel({"tasks": "tasks (hidden 320)", "hidden": "hidden size (20 tasks)"}[key])
        axes.set_ylim(1, 1.5)
        axes.spines[["top", "right"]].set_visible(False)
    left.set_ylabel("a step that reads / plain step")
    left.text(0, 4 / 3 + 0.01, "limit 4/3", color="#666", fontsize=8)
    figure.savefig(file)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--scaling", action="store_true", help="also how the price grows with tasks and model size")
    parser.add_argument("--plot", type=Path, help="draw --scaling into this file")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    result: dict[str, Any] = {}
    for name, lora in (("full", False), ("lora", True)):
        result[name] = measure(lora, options.rounds)
        base = peak(lora, "plain")
        result[name] |= {f"{side}_memory": peak(lora, side) / base for side in SIDES}
        result[name] = {key: round(value, 4) for key, value in result[name].items()}
    if options.scaling:
        result["scaling"] = scaling(options.rounds)
        if options.plot:
            plot(result["scaling"], options.plot)
    if options.json:
        print(json.dumps(result))
        return
    print(f"{'over a plain step':<28}{'full':>8}{'lora':>8}   ({DEVICE})")
    for key in result["full"]:
        print(f"{key:<28}{result['full'][key]:>8.3f}{result['lora'][key]:>8.3f}")
    for row in result.get("scaling", []):
        print(f"{row['tasks']:>4} tasks, hidden {row['hidden']}: in-run step {row['in_run_step_ratio']:.3f}")


if __name__ == "__main__":
    main()
