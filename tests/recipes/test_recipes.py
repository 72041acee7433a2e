"""Every shipped recipe parses, its first line is a command that works on it, and it plans and trains at tiny size."""

import shlex
from pathlib import Path

import pytest
import typer

from apportion._errors import ApportionError
from apportion.cli.main import app
from apportion.plans.compare import arm_values
from apportion.plans.plan import plan_recipe
from apportion.plans.recipe import overridden, parse_recipe, read_yaml
from apportion.plans.run import run_recipe

ROOT = Path(__file__).parents[2]
RECIPES = sorted(path.relative_to(ROOT) for path in (ROOT / "recipes").rglob("*.y*ml"))
ARCHITECTURES = {
    "Qwen/Qwen3-0.6B": "qwen3",
    "meta-llama/Llama-3.2-1B": "llama",
    "google/gemma-3-1b-pt": "gemma3_text",
}
TINY = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 128,
}
GEMMA = {"sliding_window": 16, "layer_types": ["sliding_attention", "full_attention"]}

every = pytest.mark.parametrize("path", RECIPES, ids=str)


@pytest.fixture(autouse=True, scope="module")
def cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("APPORTION_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


def commands_of(path):
    """Return the words of the command on the recipe's first line, a trailing comment left out."""
    first = (ROOT / path).read_text("utf-8").splitlines()[0]
    assert first.startswith("# apportion "), first
    return shlex.split(first.removeprefix("# "), comments=True)


def options_of(words):
    """Parse the command as the command line does, without running it."""
    group = typer.main.get_command(app)
    command = group.commands[words[1]]
    return words[1], command.make_context(words[1], list(words[2:])).params


def runs_of(path):
    """Return, by arm, the plain values of every run that the first line starts."""
    kind, options = options_of(commands_of(path))
    values = overridden(read_yaml(ROOT / path), options["assignments"] or [])
    if kind == "train":
        return {"": values}
    arms = options["methods"].split(",") if options["methods"] else list(values["arms"])
    return {arm: arm_values(values, arm) for arm in arms}


def tiny(values):
    """The same architecture and settings at tiny size, on a small part of the data."""
    model = values["model"]
    kind = ARCHITECTURES[model["name"]] if "name" in model else model["config"]["model_type"]
    config = {"model_type": kind, **TINY, **(GEMMA if kind == "gemma3_text" else {})}
    tasks = {**values["tasks"], "max_length": 64}
    if tasks["source"] == "playground":
        return {**values, "model": {**model, "config": config}, "tasks": {**tasks, "scale": 0.02}}
    tasks["path"] = tasks["path"].replace("/natural-instructions", "/natural-instructions-mini")
    small = {"config": config, "tokenizer": {"train": "bpe", "vocab_size": 400}}
    return {**values, "model": small, "tasks": tasks}


def test_the_shipped_recipes_are_found():
    names = {str(path) for path in RECIPES}
    assert "recipes/playground.yaml" in names
    for model in ("tiny-llama", "qwen3-0.6b", "llama-3.2-1b", "gemma-3-1b"):
        for method in ("uniform", "proportional", "adapt"):
            assert f"recipes/natural-instructions/{model}/{method}.yaml" in names


@every
def test_the_first_line_is_a_command_on_this_recipe(path):
    words = commands_of(path)
    kind, options = options_of(words)
    assert words[0] == "apportion" and kind in ("train", "compare")
    assert Path(options["recipe"]) == path
    assert str(options["out"]).startswith("runs/")


@every
def test_every_run_of_it_parses(path):
    runs = runs_of(path)
    assert runs
    for arm, values in runs.items():
        recipe = parse_recipe(values)
        assert arm in ("", recipe.mixture["type"])
    with pytest.raises(ApportionError, match=r"Unknown key 'budgets' \(did you mean 'budget'\?\)"):
        parse_recipe({**read_yaml(ROOT / path), "budgets": 1})


@every
def test_it_plans_at_tiny_size(path):
    plans = {arm: plan_recipe(parse_recipe(tiny(values))) for arm, values in runs_of(path).items()}
    for arm, plan in plans.items():
        assert plan.steps >= 1 and len(plan.mixture) == 20, arm
        assert plan.accounts["train"]["flops"] > 0 and plan.accounts["validation"]["flops"] > 0
    limits = {(plan.budget["unit"], plan.budget["limit"]) for plan in plans.values()}
    assert len(limits) == 1


@pytest.mark.parametrize("folder", ["qwen3-0.6b", "llama-3.2-1b", "gemma-3-1b"])
def test_its_architecture_trains_at_tiny_size(folder, tmp_path):
    path = Path("recipes/natural-instructions") / folder / "adapt.yaml"
    (values,) = runs_of(path).values()
    small = overridden(
        tiny(values),
        [
            "budget=600",
            "training.per_device_train_batch_size=2",
            "mixture.refresh=2",
            "mixture.examples_per_task=1",
            "validation.every=50%",
            "validation.examples_per_task=1",
        ],
    )
    summary = run_recipe(parse_recipe(small), tmp_path / "run").summary
    assert 0 < summary["spent"]["train"]["supervised"] <= 600
    assert summary["spent"]["meta"]["flops"] > 0
    assert all(loss > 0 for loss in summary["final"]["validation"].values())
