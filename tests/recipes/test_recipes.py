"""Every shipped recipe parses, its first line is a command that works on it, and it plans and trains at tiny size."""

import json
import os
import shlex
from pathlib import Path

import numpy as np
import pytest
import typer

from apportion._errors import ApportionError
from apportion.cli.main import app
from apportion.mixtures import MIXTURES
from apportion.plans.arms import arm_values
from apportion.plans.build import load_data
from apportion.plans.plan import plan_recipe
from apportion.plans.recipe import is_serving, overridden, parse_recipe, read_yaml
from apportion.plans.reinforce import plan_reinforcing, reinforce_recipe
from apportion.plans.reinforcing import is_reinforcing, parse_reinforcing
from apportion.plans.run import run_recipe
from apportion.plans.serving import parse_serving, plan_serving
from apportion.tasks import TasksSpec

ROOT = Path(__file__).parents[2]
FILES = sorted(path.relative_to(ROOT) for path in (ROOT / "recipes").rglob("*.y*ml"))
INFERENCE = [path for path in FILES if is_serving(read_yaml(ROOT / path))]
REINFORCEMENT = [path for path in FILES if is_reinforcing(read_yaml(ROOT / path))]
RECIPES = [path for path in FILES if path not in (*INFERENCE, *REINFORCEMENT)]
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
        patch.setenv("APPORTION_CORPUS", str(write_corpus(tmp_path_factory.mktemp("corpus"))))
        yield


def write_corpus(folder):
    """Two domains of plain text, some documents shorter and some far longer than 64 tokens."""
    rng = np.random.default_rng(0)
    words = ["data", "model", "token", "budget", "gradient", "loss", "the", "of", "learns", "draws"]
    for domain, documents in (("web", 40), ("books", 20)):
        texts = [" ".join(rng.choice(words, size=int(rng.integers(5, 300)))) + "." for _ in range(documents)]
        (folder / f"{domain}.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return folder


def commands_of(path):
    """Return the words of the command on the recipe's first line, a trailing comment left out."""
    first = (ROOT / path).read_text("utf-8").splitlines()[0]
    assert first.startswith("# apportion "), first
    return shlex.split(first.removeprefix("# "), comments=True)


def options_of(words):
    """Parse the command as the command line does, without running it."""
    group = typer.main.get_command(app)
    return words[1], group.commands[words[1]].make_context(words[1], list(words[2:])).params


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
    if "APPORTION_CORPUS" in tasks.get("path", ""):
        small = {"config": {"model_type": kind, **TINY}, "tokenizer": {"train": "bpe", "vocab_size": 400}}
        training = {**values["training"], "gradient_accumulation_steps": 1}
        return {**values, "model": small, "tasks": {**tasks, "validation": 0.1}, "training": training}
    if tasks["source"] == "playground":
        return {**values, "model": {**model, "config": config}, "tasks": {**tasks, "scale": 0.02}}
    if tasks["source"] == "scratchpad":
        return {**values, "model": {**model, "config": config}, "tasks": {**tasks, "examples": 40}}
    tasks["path"] = tasks["path"].replace("/natural-instructions", "/natural-instructions-mini")
    small = {"config": config, "tokenizer": {"train": "bpe", "vocab_size": 400}}
    return {**values, "model": small, "tasks": tasks}


def tasks_of(path, values):
    """Return how many tasks a recipe has beside its targets."""
    if values["tasks"].get("source") == "scratchpad":
        return len(TasksSpec.model_validate(values["tasks"] | {"examples": 20}).load())
    return 2 if "pretraining" in str(path) else 20


def test_the_shipped_recipes_are_found():
    assert Path("recipes/inference/kv-budget.yaml") in INFERENCE
    assert all("inference" in str(path) for path in INFERENCE)
    assert Path("recipes/thinking/brpo.yaml") in REINFORCEMENT
    names = {str(path) for path in RECIPES}
    assert {"recipes/playground.yaml", "recipes/thinking/sft.yaml"} <= names
    for model in ("tiny-llama", "qwen3-0.6b", "llama-3.2-1b", "gemma-3-1b"):
        for method in ("uniform", "proportional", "adapt", "adapt-paper"):
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
        # An arm's name is a method of it, after its family where several have one of that name.
        types = {recipe.mixture["type"], recipe.selection["type"], recipe.weights["type"]}
        assert (
            arm in ("", "adapt-paper", "less-exact") or arm.removeprefix("selection-").removeprefix("weights-") in types
        )
        if arm == "adapt-paper" or path.stem == "adapt-paper":
            assert_the_papers_plain_method(recipe)
    with pytest.raises(ApportionError, match=r"Unknown key 'budgets' \(did you mean 'budget'\?\)"):
        parse_recipe({**read_yaml(ROOT / path), "budgets": 1})


def assert_the_papers_plain_method(recipe):
    """Whatever the size of its step, which the paper leaves open: J of raw losses, logits from zero, nothing but them."""
    mixture = MIXTURES.build(recipe.mixture)
    assert recipe.objective["type"] == "worst" and recipe.objective["tau"] in (0.1, 0.3, 1.0)
    assert mixture.estimator in ("forward", "unrolled") and mixture.step in ("plain", "adam")
    assert (mixture.prior, mixture.memory, mixture.floor, mixture.entropy) == (0, 1, 0, 1e-3)


def test_the_playground_offers_the_papers_plain_method_as_an_arm():
    values = read_yaml(ROOT / "recipes" / "playground.yaml")
    assert_the_papers_plain_method(parse_recipe(arm_values(values, "adapt-paper")))


@every
def test_it_plans_at_tiny_size(path):
    runs = runs_of(path)
    plans = {arm: plan_recipe(parse_recipe(tiny(values))) for arm, values in runs.items()}
    for arm, plan in plans.items():
        values = runs[arm]
        # Targets that may be trained on are tasks too.
        own = "path" in (asked := values.get("targets") or {}) or "source" in asked
        trained = sum(target["train"] > 0 for target in plan.targets.values()) if own else 0
        assert plan.steps >= 1 and len(plan.mixture) == tasks_of(path, values) + trained, arm
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


@pytest.mark.parametrize("name", ["uniform", "adapt"])
def test_pretraining_supervises_every_token_of_the_corpus_once(name, tmp_path):
    (values,) = runs_of(Path("recipes/pretraining/tinyllama-120m") / f"{name}.yaml").values()
    recipe = parse_recipe(overridden(tiny(values), ["validation.every=50%", "validation.examples_per_task=2"]))
    data = load_data(recipe)
    texts = [json.loads(line)["text"] for file in corpus_files() for line in file.read_text().splitlines()]
    tokens = sum(len(data.tokenizer(text, add_special_tokens=False)["input_ids"]) for text in texts)
    splits = [split for task in data.tasks.tasks for split in (task.train, task.validation)]
    # The end token is supervised and the first one is not, as nothing comes before it.
    assert sum(int(split.supervised.sum()) for split in splits) == tokens
    assert any("cut into several examples" in finding for finding in data.findings)
    done = run_recipe(recipe, tmp_path / "run")
    mixture = json.loads((done.path / "mixture.json").read_text())
    assert all(task["epochs"] == 1.0 for task in mixture["tasks"].values())
    train = done.summary["spent"]["train"]
    assert train["supervised"] == data.tasks.supervised_total
    assert train["padded"] < 1.25 * train["processed"]
    args = recipe.arguments(tmp_path)
    assert (args.adam_beta1, args.adam_beta2, args.weight_decay, args.max_grad_norm) == (0.9, 0.95, 0.1, 1.0)
    rates = [json.loads(line)["lr"] for line in (done.path / "history.jsonl").read_text().splitlines()][1:-1]
    assert max(rates) <= 4e-4 and min(rates) >= 4e-5 and rates == sorted(rates, reverse=True)


def corpus_files():
    return sorted(Path(os.environ["APPORTION_CORPUS"]).glob("*.jsonl"))


@pytest.mark.parametrize("path", INFERENCE, ids=str)
def test_a_recipe_of_inference_plans_as_its_first_line_says_and_as_it_is(path, monkeypatch):
    words = commands_of(path)
    kind, options = options_of(words)
    assert words[0] == "apportion" and kind == "plan" and Path(options["recipe"]) == path
    values = read_yaml(ROOT / path)
    monkeypatch.chdir(ROOT)
    plan = plan_serving(parse_serving(values))
    limits = parse_serving(values).inference
    assert plan.longest["answer"] == limits.answer and 0 < plan.mean["prompt"] < plan.longest["prompt"] <= limits.prompt
    assert 0 < plan.mean["read"] < plan.longest["read"] and next(iter(plan.binds)) == "resident"
    assert plan_serving(parse_serving({**values, "cache": "dense"})).longest["read"] > plan.longest["read"]
    with pytest.raises(ApportionError, match=r"Unknown key 'prompt' \(did you mean 'prompts'\?\)"):
        parse_serving({**values, "prompt": 1})


@pytest.fixture(scope="module")
def start(tmp_path_factory, cache):
    values = tiny(read_yaml(ROOT / "recipes/thinking/sft.yaml"))
    return run_recipe(parse_recipe({**values, "budget": "2k processed"}), tmp_path_factory.mktemp("start") / "sft").path


@pytest.mark.parametrize("path", REINFORCEMENT, ids=str)
def test_a_recipe_of_reinforcement_runs_from_what_the_other_one_trains(path, start, tmp_path):
    words = commands_of(path)
    kind, options = options_of(words)
    assert words[0] == "apportion" and kind == "reinforce" and Path(options["recipe"]) == path
    values = read_yaml(ROOT / path)
    begun = options_of(commands_of(Path("recipes/thinking/sft.yaml")))[1]["out"]
    assert values["rl"]["start"] == str(begun)
    tasks = {**values["tasks"], "examples": 40}
    rl = {**values["rl"], "start": str(start), "prompts": 1, "rollouts": 2}
    recipe = parse_reinforcing({**values, "rl": rl, "tasks": tasks, "budget": {"generated": 1500}})
    assert plan_reinforcing(recipe)["steps"] >= 1
    assert reinforce_recipe(recipe, tmp_path / "run").summary["steps"] >= 1
