"""Reinforcement as a run: what it spends, that it goes on where it was killed, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from apportion import ApportionError
from apportion.cli.main import app
from apportion.plans.recipe import overridden, parse_recipe
from apportion.plans.reinforce import Reinforcing, plan_reinforcing, reinforce_recipe
from apportion.plans.reinforcing import parse_reinforcing
from apportion.plans.run import run_recipe
from apportion.runs import read_run

SFT: dict[str, Any] = {
    "model": {
        "config": {
            "model_type": "llama",
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "num_key_value_heads": 2,
            "max_position_embeddings": 128,
            "tie_word_embeddings": True,
            "attention_dropout": 0.1,
        },
        "tokenizer": {"train": "character", "vocab_size": 64, "tokens": ["<think>", "</think>"]},
    },
    "tasks": {"source": "scratchpad", "examples": 60, "steps": [2, 4], "styles": ["terse"], "validation": 0.2},
    "thinking": {"cuts": 0.5},
    "budget": "3k",
    "validation": {"every": 1.0, "examples_per_task": 2},
    "training": {"learning_rate": 3e-3, "per_device_train_batch_size": 8},
}
RL: dict[str, Any] = {
    "rl": {"budgets": [2, 4, 8], "rollouts": 3, "summaries": 2, "prompts": 2, "answer": 3},
    "tasks": SFT["tasks"],
    "budget": {"generated": 2500},
    "validation": {"every": 0.25, "examples_per_task": 3},
    "training": {"learning_rate": 1e-3, "gradient_accumulation_steps": 2},
    "seed": 4,
}


@pytest.fixture(scope="module")
def start(tmp_path_factory) -> Path:
    return run_recipe(parse_recipe(SFT), tmp_path_factory.mktemp("start") / "sft").path


def recipe(start: Path, *assignments: str):
    values = {**RL, "rl": {**RL["rl"], "start": str(start)}}
    return parse_reinforcing(overridden(values, assignments))


def lines(path: Path) -> list[dict[str, Any]]:
    found = [json.loads(line) for line in path.read_text().splitlines()]
    return [{key: value for key, value in line.items() if key != "seconds"} for line in found]


def told(path: Path) -> dict[str, Any]:
    """All that a run says, but for clocks."""
    summary = json.loads((path / "summary.json").read_text())
    return {
        "weights": (path / "model" / "model.safetensors").read_bytes(),
        "summary": {key: value for key, value in summary.items() if key != "seconds"},
        **{name: lines(path / name) for name in ("history.jsonl", "rollouts.jsonl")},
        **{name: (path / name).read_text() for name in ("ledger.json", "recipe.yaml")},
    }


class Killed(BaseException):
    pass


@pytest.mark.parametrize("after", [2, 5])
def test_a_run_that_was_killed_goes_on_as_if_it_never_was(start, tmp_path, after):
    whole = told(reinforce_recipe(recipe(start), tmp_path / "whole").path)
    records = []

    def kill(record, share):
        records.append(record)
        if len(records) == after:
            raise Killed

    with pytest.raises(Killed):
        reinforce_recipe(recipe(start), tmp_path / "killed", kill)
    assert not (tmp_path / "killed" / "summary.json").exists()
    again = told(reinforce_recipe(recipe(start), tmp_path / "killed").path)
    assert again["weights"] == whole["weights"]
    assert {**again, "weights": b""} == {**whole, "weights": b""}
    assert len(whole["history.jsonl"]) > after


def test_every_generated_token_is_counted(start, tmp_path):
    stage = Reinforcing(recipe(start), tmp_path / "never")
    stage.rollouts.roll(stage.model, 0)
    spent, traces = stage.ledger.spent("generate"), stage.rollouts.rolled.traces
    assert len(traces) == 6
    assert spent.thinking == sum(len(trace.thinking) for trace in traces)
    own = sum(sum(trace.chosen) for trace in traces)
    answers = sum(len(summary.ids) for trace in traces for cut in trace.summaries for summary in cut)
    assert spent.answer == own + answers
    # A forced end of the thinking itself, and the close tag of every answer behind a cut.
    forced = sum(not chosen for trace in traces for chosen in trace.chosen)
    cut = sum(len(trace.inserted) * len(trace.summaries[s]) for trace in traces for s in range(trace.end))
    assert spent.inserted == forced + cut
    assert spent.generated <= stage.rollouts.step_price.generated
    assert spent.flops <= stage.rollouts.step_price.generate


def test_a_trace_is_what_was_asked_for(start, tmp_path):
    stage = Reinforcing(recipe(start), tmp_path / "never")
    budgets = stage.recipe.rl.budgets
    stage.rollouts.roll(stage.model, 3)
    tasks = {problem.ids for task in stage.problems.train for problem in task}
    close = stage.rollouts.roller.ids.close
    for trace in stage.rollouts.rolled.traces:
        assert trace.problem.ids in tasks
        assert [len(cut) for cut in trace.summaries] == [2, 2, 2]
        assert len(trace.thinking) <= budgets[-1]
        assert trace.tail[: len(close)] == close
        assert (len(trace.thinking) == budgets[-1]) == trace.forced
        assert all(1 <= len(summary.ids) <= 3 for cut in trace.summaries for summary in cut)
    groups = np.array(
        [trace.problem.ids == stage.rollouts.rolled.traces[0].problem.ids for trace in stage.rollouts.rolled.traces]
    )
    assert groups[:3].all()


@pytest.mark.parametrize(
    "budget", ["{generated: 900}", "{generated: 1711}", "{total: 4e9 FLOPs}", "{total: 9.1e9 FLOPs}"]
)
def test_a_budget_is_never_overspent_and_is_used_up_but_for_a_step(start, tmp_path, budget):
    asked = recipe(start, f"budget={budget}")
    done = reinforce_recipe(asked, tmp_path / "run")
    ledger = json.loads((done.path / "ledger.json").read_text())
    accounts, limit = ledger["accounts"], ledger["budget"]["limit"]
    step = Reinforcing(asked, tmp_path / "never").rollouts
    if ledger["budget"]["unit"] == "generated":
        used = sum(accounts["generate"][kind] for kind in ("thinking", "answer", "inserted"))
        left = step.step_price.generated
    else:
        used = sum(account["flops"] for account in accounts.values())
        left = step.step_price.generate + step.step_price.train + 2 * step.measure_price.generate
    assert limit - left <= used <= limit
    assert done.summary["steps"] >= 1


def test_the_plan_prices_steps_at_full_length(start, tmp_path):
    planned = plan_reinforcing(recipe(start))
    done = reinforce_recipe(recipe(start), tmp_path / "run")
    spent = done.summary["spent"]
    # Roll-outs that end early leave room for more steps, never for fewer.
    assert done.summary["steps"] >= planned["steps"] >= 1
    assert planned["accounts"]["generate"]["generated"] <= 2500
    steps = done.summary["steps"]
    assert spent["generate"]["flops"] <= steps * planned["step"]["generate"]
    assert spent["train"]["flops"] <= steps * planned["step"]["train"]
    assert spent["validation"]["flops"] <= planned["accounts"]["validation"]["flops"]


def test_grpo_is_one_budget_and_one_answer(start, tmp_path):
    values = {
        **RL,
        "rl": {"type": "grpo", "start": str(start), "budgets": [8], "rollouts": 3, "prompts": 2, "answer": 3},
    }
    done = reinforce_recipe(parse_reinforcing(values), tmp_path / "run")
    assert done.summary["method"] == "grpo"
    assert all(
        len(line["cuts"]) == 1 and len(line["cuts"][0]["answers"]) == 1 for line in lines(done.path / "rollouts.jsonl")
    )


def test_before_and_after_are_measured_on_the_same_problems_by_the_same_draws(start, tmp_path):
    done = reinforce_recipe(recipe(start, "training.learning_rate=1e-9"), tmp_path / "run")
    assert done.summary["first"] == done.summary["final"]
    curve = json.loads((done.path / "curve.json").read_text())
    assert [cell["name"] for cell in curve["cells"]] == ["before"] * 3 + ["after"] * 3


@pytest.mark.parametrize(
    ("assignment", "said"),
    [
        ("rl.budgets=[4, 4]", "each larger than the one before"),
        ("rl.budgets=[0, 4]", "above zero"),
        ("rl.budgets=[2, 400]", "128 positions"),
        ("rl.measured=[8, 2]", "each larger than the one before"),
        ("rl.measured=[2, 400]", "128 positions"),
        ("rl.prior=unifrm", "uniform"),
        ("rl.prior=[1, 2]", "each of the 3 budgets"),
        ("rl.type=grpo", "one budget, one summary"),
        ("rl.rollout=3", "did you mean 'rollouts'"),
        ("rl.start=nowhere", "which is no run"),
        ("budget=2k", "{generated: 2M}"),
        ("budget={generated: 10}", "does not hold one step"),
        ("mixture=adapt", "take uniform, proportional, temperature or fixed"),
        ("mixture=unifrom", "did you mean 'uniform'"),
        ("training.per_device_train_batch_size=4", "'rl.prompts' and 'rl.rollouts'"),
        ("training.learning_rte=4", "learning_rate"),
        ("rl.rewards={accuracy: 0.4, length: {weight: 0.5}}", "no more than a wrong one"),
    ],
)
def test_bad_input_ends_in_a_sentence_and_leaves_nothing(start, tmp_path, assignment, said):
    with pytest.raises(ApportionError) as error:
        reinforce_recipe(recipe(start, assignment), tmp_path / "run")
    assert said in str(error.value)
    assert str(error.value).count("\n") == 0
    assert not (tmp_path / "run").exists()


def test_it_goes_on_from_a_run_of_its_own_kind_in_half_precision_and_eager_attention(start, tmp_path):
    first = reinforce_recipe(recipe(start, "budget={generated: 500}"), tmp_path / "first")
    assert read_run(first.path).recipe["thinking"] == {"open": "<think>", "close": "</think>", "wait": "Wait"}
    config = first.path / "model" / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "attn_implementation": "eager"}))
    second = recipe(first.path, "budget={generated: 500}", "training.bf16=true")
    assert reinforce_recipe(second, tmp_path / "second").summary["steps"] >= 1


def test_an_adapter_is_no_start(start, tmp_path):
    values = {**SFT, "lora": {"r": 2}, "budget": 300}
    adapter = run_recipe(parse_recipe(values), tmp_path / "adapter").path
    with pytest.raises(ApportionError, match="trained an adapter"):
        recipe(adapter)


def test_a_start_without_tags_or_unfinished_is_refused(start, tmp_path):
    plain = {key: value for key, value in SFT.items() if key != "thinking"}
    without = run_recipe(parse_recipe({**plain, "budget": 300}), tmp_path / "plain").path
    with pytest.raises(ApportionError, match="names no tags to think between"):
        recipe(without)
    (without / "summary.json").unlink()
    with pytest.raises(ApportionError, match="not finished"):
        recipe(without)


@pytest.mark.parametrize(
    ("there", "said"), [(None, "is not installed"), ("1.17.0", "TRL 1.17.0 is installed"), ("1.2", "1.2")]
)
def test_trl_that_is_missing_or_of_another_version_is_said(start, tmp_path, monkeypatch, there, said):
    import importlib.metadata as metadata

    def version(name):
        if there is None:
            raise metadata.PackageNotFoundError(name)
        return there

    monkeypatch.setattr(metadata, "version", version)
    with pytest.raises(ApportionError, match="pip install 'apportion") as error:
        reinforce_recipe(recipe(start), tmp_path / "run")
    assert said in str(error.value) and not (tmp_path / "run").exists()


def test_a_recipe_of_training_has_no_generated_tokens_and_no_rl(start):
    with pytest.raises(ApportionError, match="training generates none"):
        parse_recipe({**SFT, "budget": {"generated": 100}})
    with pytest.raises(ApportionError, match="no block 'rl'"):
        parse_reinforcing(SFT)


def test_the_command_prints_what_came_of_it_and_the_plan_its_price(start, tmp_path):
    import yaml

    file = tmp_path / "rl.yaml"
    file.write_text(yaml.safe_dump({**RL, "rl": {**RL["rl"], "start": str(start)}, "budget": {"generated": 900}}))
    planned = CliRunner().invoke(app, ["plan", str(file)])
    assert planned.exit_code == 0 and "At full length" in planned.output
    done = CliRunner().invoke(app, ["reinforce", str(file), "--out", str(tmp_path / "run")])
    assert done.exit_code == 0, done.output
    assert "right answers" in done.output and (tmp_path / "run" / "report.html").exists()
