"""How long a report takes and how large it is: `python benchmarks/report.py [--json] [--arms 10] [--seeds 5] [--tasks 100]`.

The run folders are made up, in a temporary folder: 100 history records a run, validated at every fifth, 64 validation
examples a task, and ten downstream tasks of 100 answers each. Seconds are those of `write_report` in this process, imports
left out, the smallest of three; megabytes those of the page. Limits on 50 runs of 100 tasks: 2 s and 2 MB.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import tempfile
import time
from pathlib import Path
from typing import Any

from apportion.reports import write_report
from apportion.runs import RunFolder
from apportion.runs.evaluation import write_answers, write_evaluation
from apportion.runs.uncertainty import of_validation

BUDGET, RECORDS, EXAMPLES, ANSWERS = 200_000, 100, 64, 100
DOWNSTREAM = [f"benchmark-{i}" for i in range(10)]


def main() -> None:
    """Write the folders, report on them and print what that took."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="one machine-readable line")
    for name, number in (("arms", 10), ("seeds", 5), ("tasks", 100)):
        parser.add_argument(f"--{name}", type=int, default=number, help=f"(default {number})")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "comparison"
        for arm in range(args.arms):
            for seed in range(args.seeds):
                name = "uniform" if arm == 0 else f"adapt-{arm}"
                write_run(root / name / f"seed-{seed}", name, arm, seed, [f"task-{i}" for i in range(args.tasks)])
        seconds = min(timed(root) for _ in range(3))
        megabytes = (root / "report.html").stat().st_size / 1e6
    if args.json:
        print(json.dumps({"seconds": round(seconds, 2), "megabytes": round(megabytes, 3)}))
        return
    print("runs | tasks | seconds (limit 2) | megabytes (limit 2)")
    print(f"{args.arms * args.seeds:4} | {args.tasks:5} | {seconds:17.2f} | {megabytes:19.3f}")


def timed(root: Path) -> float:
    """Return the seconds that a report takes."""
    start = time.perf_counter()
    write_report(root)
    return time.perf_counter() - start


def write_run(path: Path, name: str, arm: int, seed: int, tasks: list[str]) -> None:
    """Write a finished run whose losses fall with its tokens, the faster the higher its arm's number."""
    noise = random.Random(f"{arm}/{seed}")
    recipe = {"tasks": {"path": "data"}, "budget": BUDGET, "mixture": {"type": name}, "seed": seed}
    with RunFolder.create(path, recipe) as folder:
        for step in range(RECORDS + 1):
            record = measured(arm, step, tasks, noise)
            folder.append_history(record)
        folder.write_ledger({"budget": {"unit": "supervised", "limit": BUDGET}, "accounts": record["spent"]})
        shares, sizes = record["mixture"], [int(1e6 * (i + 1) ** -1.2) for i in range(len(tasks))]
        drawn = {
            task: {"supervised": int(p * BUDGET), "examples": int(p * BUDGET / 6), "epochs": p * BUDGET / n, "size": n}
            for (task, p), n in zip(shares.items(), sizes, strict=True)
        }
        folder.write_mixture({"final": shares, "token_averaged": shares, "tasks": drawn})
        kept = {task: examples(task, loss, noise) for task, loss in record["validation"].items()}
        folder.write_validation({"step": step, "tasks": kept})
        final = {key: record[key] for key in ("macro", "worst", "objective", "validation")}
        method = {"type": name, "plain": arm == 0, "advice": {}}
        summary = {"method": name, "methods": {"mixture": method}, "seed": seed, "spent": record["spent"]}
        summary |= {"final": final | of_validation(kept, record["validation"], {}), "best": final, "seconds": 60.0}
        folder.write_summary(summary | {"n_eff": record["n_eff"], "fingerprint": "made up"})
    evaluate(path, arm, noise)


def measured(arm: int, step: int, tasks: list[str], noise: random.Random) -> dict[str, Any]:
    """Return a history record."""
    tokens = BUDGET * step // RECORDS
    raw = [math.exp(0.1 * arm * step / RECORDS * math.sin(1.7 * i)) for i in range(len(tasks))]
    shares = {task: p / sum(raw) for task, p in zip(tasks, raw, strict=True)}
    spent = {
        "supervised": tokens,
        "processed": 6 * tokens,
        "padded": 7 * tokens,
        "flops": 1e7 * tokens * (1 + arm / 50),
    }
    record = {"step": step, "spent": {"train": spent}, "seconds": 0.6 * step, "loss": 2.0, "mixture": shares}
    record["n_eff"] = math.exp(-sum(p * math.log(p) for p in shares.values()))
    if step % 5 == 0:
        falls = 4 * (1 + (1 + arm / 50) * tokens / 8000) ** -0.5
        losses = {task: 0.4 + 0.01 * i + falls + noise.gauss(0, 0.02) for i, task in enumerate(tasks)}
        mean, worst = sum(losses.values()) / len(losses), max(losses.values())
        record |= {"validation": losses, "macro": mean, "worst": worst, "objective": (mean + worst) / 2}
    return record


def examples(task: str, loss: float, noise: random.Random) -> dict[str, list[Any]]:
    """Return validation examples whose mean loss over tokens is ``loss``."""
    shared = random.Random(task)
    tokens = [shared.randint(2, 12) for _ in range(EXAMPLES)]
    raw = [shared.gauss(0, 0.3) + noise.gauss(0, 0.1) for _ in tokens]
    middle = sum(n * r for n, r in zip(tokens, raw, strict=True)) / sum(tokens)
    nll = [n * (loss + r - middle) for n, r in zip(tokens, raw, strict=True)]
    return {"ids": [f"{task}-{i}" for i in range(EXAMPLES)], "nll": nll, "supervised": tokens}


def evaluate(path: Path, arm: int, noise: random.Random) -> None:
    """Write downstream scores and the answers that they are the means of."""
    tasks = {}
    for task in DOWNSTREAM:
        shared = random.Random(task)
        scores = [float(noise.random() + shared.random() < 0.7 + 0.02 * arm) for _ in range(ANSWERS)]
        mean = sum(scores) / ANSWERS
        error = math.sqrt(mean * (1 - mean) / (ANSWERS - 1))
        answers = [
            {"id": i, "prompt": "A question of some length. " * 20, "reference": "an answer", "answer": "text " * 20}
            | {"score": score}
            for i, score in enumerate(scores)
        ]
        write_answers(path, task, answers)
        tasks[task] = {
            "set": task, "metric": "exact_match", "higher_is_better": True, "examples": ANSWERS, "generates": True,
            "metrics": {"exact_match": {"value": mean, "error": error}}, "settings": {}, "seconds": 1.0,
            "spent": {"supervised": 0, "processed": 0, "padded": 0, "flops": 0.0},
        }  # fmt: skip
    write_evaluation(path, {"tasks": tasks, "groups": {"all": DOWNSTREAM[:6]}})


if __name__ == "__main__":
    main()
