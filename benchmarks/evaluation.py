"""`apportion evaluate` beside the harness's own command, on one saved model, with the same questions.

    python benchmarks/evaluation.py [--json] [--rounds 5] [--limit 40]

- ``overhead``: seconds of the stage (loading model and tasks, pricing, asking, counting, writing scores and answers) over
  those of the harness's own model class and `simple_evaluate`, which notes the environment and is written out too, in one
  process, alternating; the median of the rounds' ratios. Neither reads the index of all tasks within its time.
- ``command``: the whole command over the whole command of the harness, each in a process of its own: imports, the model
  and the tasks loaded, and for the harness its index of all tasks, which the shipped ones do not need.
- ``identical``: whether every score of every task is the same, to the bit.

A Llama of 3M parameters trained for a moment; three tasks of BIG-Bench Hard, GSM8K, and a task of choices.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

RECIPE: dict[str, Any] = {
    "model": {
        "config": {
            "model_type": "llama",
            "hidden_size": 192,
            "intermediate_size": 512,
            "num_hidden_layers": 6,
            "num_attention_heads": 4,
            "num_key_value_heads": 4,
            "max_position_embeddings": 1024,
            "tie_word_embeddings": True,
        },
        "tokenizer": {"train": "bpe", "vocab_size": 2048},
    },
    "tasks": {"path": "${APPORTION_DATA}/natural-instructions-mini", "max_length": 128},
    "budget": 2000,
    "training": {"learning_rate": 1e-3, "per_device_train_batch_size": 8, "per_device_eval_batch_size": 8},
}
TASKS = ["bbh_navigate", "bbh_boolean_expressions", "bbh_word_sorting", "gsm8k"]
LOCAL = str(resources.files("apportion.evaluation") / "local")


def choices(folder: Path) -> str:
    """Write a task of choices from BIG-Bench Hard's yes-or-no questions, and return its file."""
    docs = json.loads(Path(os.environ["APPORTION_DATA"], "eval/bbh/causal_judgement.json").read_text("utf-8"))[
        "examples"
    ]
    rows = "".join(json.dumps(doc) + "\n" for doc in docs)
    (folder / "judging.jsonl").write_text(rows)
    task = {
        "task": "judging",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(folder / "judging.jsonl")}},
        "test_split": "test",
        "output_type": "multiple_choice",
        "doc_to_text": "{{input}}\nAnswer:",
        "doc_to_choice": ["Yes", "No"],
        "doc_to_target": "{{['Yes', 'No'].index(target)}}",
        "metric_list": [{"metric": "acc"}],
    }
    (folder / "judging.yaml").write_text(yaml.safe_dump(task))
    return str(folder / "judging.yaml")


def trained(folder: Path) -> Path:
    """Train the model, and return its run folder."""
    from apportion.plans.recipe import parse_recipe
    from apportion.plans.run import run_recipe

    return run_recipe(parse_recipe(RECIPE), folder / "run").path


def without_scores(run: Path, folder: Path, number: int) -> Path:
    """Return a copy of a run folder that was asked nothing."""
    copy = folder / f"copy-{number}"
    shutil.copytree(run, copy, ignore=shutil.ignore_patterns("evaluation*", "checkpoints"))
    return copy


def flat(results: Mapping[str, Mapping[str, Any]]) -> dict[tuple[str, str], float]:
    """Return the harness's scores by task and metric."""
    return {
        (task, key.removesuffix(",none")): float(value)
        for task, numbers in results.items()
        for key, value in numbers.items()
        if "," in key and "_stderr" not in key
    }


def ours(run: Path) -> dict[tuple[str, str], float]:
    """Return a run folder's scores by task and metric."""
    tasks = json.loads((run / "evaluation.json").read_text("utf-8"))["tasks"]
    return {(task, key): s["value"] for task, of in tasks.items() for key, s in of["metrics"].items()}


def in_one_process(run: Path, folder: Path, tasks: list[str], limit: int, rounds: int) -> tuple[float, bool]:
    """Return the median ratio of the two in one process, and whether all scores agree."""
    from lm_eval.evaluator import simple_evaluate
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    from apportion.evaluation.spec import EvaluateSpec
    from apportion.plans.evaluate import evaluate_run

    spec = EvaluateSpec(tasks=tasks, limit=limit)
    manager = TaskManager(include_path=LOCAL, include_defaults=False)
    ratios, agree = [], True
    for number in range(rounds + 1):
        copy = without_scores(run, folder, number)
        started = time.perf_counter()
        evaluate_run(copy, spec)
        mine = time.perf_counter() - started
        started = time.perf_counter()
        model = HFLM(pretrained=str(run / "model"), device="cpu", dtype="float32", batch_size=8)
        found: Any = simple_evaluate(model=model, tasks=tasks, limit=limit, task_manager=manager)
        (folder / "theirs.json").write_text(json.dumps(found["samples"], default=str))
        theirs = time.perf_counter() - started
        agree = agree and flat(found["results"]) == ours(copy)
        if number:  # the first round warms both up
            ratios.append(mine / theirs)
    return statistics.median(ratios), agree


def as_commands(run: Path, folder: Path, tasks: list[str], limit: int) -> float:
    """Return the ratio of the two commands' seconds."""
    copy = without_scores(run, folder, 999)
    mine = [sys.executable, "-c", "from apportion.cli.main import main; main()", "evaluate", str(copy)]
    mine += ["--tasks", ",".join(tasks), "--limit", str(limit), "--json"]
    theirs = [sys.executable, "-m", "lm_eval", "run", "--model", "hf", "--device", "cpu", "--batch_size", "8"]
    theirs += ["--model_args", f"pretrained={run / 'model'},dtype=float32", "--limit", str(limit)]
    theirs += ["--tasks", ",".join(tasks), "--include_path", LOCAL]
    theirs += ["--output_path", str(folder / "out"), "--log_samples"]
    seconds = []
    for command in (mine, theirs):
        started = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True)
        seconds.append(time.perf_counter() - started)
    return seconds[0] / seconds[1]


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="one machine-readable line")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--limit", type=int, default=40)
    args = parser.parse_args()
    os.environ.setdefault("TQDM_DISABLE", "1")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        run = trained(folder)
        tasks = [*TASKS, choices(folder)]
        overhead, identical = in_one_process(run, folder, tasks, args.limit, args.rounds)
        command = as_commands(run, folder, tasks, args.limit)
    figures = {"overhead": round(overhead, 3), "command": round(command, 3), "identical": identical}
    if args.json:
        print(json.dumps(figures))
        return
    print(
        f"evaluate over the harness: {figures['overhead']} in one process, {figures['command']} as commands; ", end=""
    )
    print("every score is the same" if identical else "scores differ")


if __name__ == "__main__":
    main()
