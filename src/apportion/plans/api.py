"""The library's front door: a dozen lines of Python do what a recipe does."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from numbers import Integral
from pathlib import Path
from typing import Any

from apportion._config import validate
from apportion._errors import ApportionError
from apportion._ranks import rank
from apportion.budget import InferenceBudget, ThinkingBudget
from apportion.caches import CacheMethod
from apportion.decoding.engine import Answered
from apportion.decoding.requests import requests_of
from apportion.evaluation.spec import EvaluateSpec
from apportion.mixtures import MIXTURES
from apportion.mixtures._mixture import Mixture
from apportion.models import KINDS
from apportion.objectives import OBJECTIVES
from apportion.plans.answering import cache_method, load_answering
from apportion.plans.arms import arms_of
from apportion.plans.compare import Comparison, compare_recipe
from apportion.plans.evaluate import Evaluated, evaluate_run
from apportion.plans.export import Exported, export_run, shares_in
from apportion.plans.progress import progress as shown
from apportion.plans.recipe import parse_recipe
from apportion.plans.reinforce import Reinforced, reinforce_recipe
from apportion.plans.reinforcing import parse_reinforcing
from apportion.plans.run import Run, run_recipe
from apportion.plans.select import Selected, select_recipe
from apportion.selections import SELECTIONS
from apportion.selections._selection import Selection
from apportion.tasks import TaskCollection
from apportion.tasks.goals import TargetsSpec
from apportion.tasks.spec import SourceSpec, plain_path
from apportion.thinking.tags import ThinkingTags
from apportion.weights import WEIGHTS
from apportion.weights._weighting import Weighting

Model = str | Path | Mapping[str, Any]
Tasks = TaskCollection | str | Path | Mapping[str, Any]
Method = Mixture | str | Mapping[str, Any]
AnyMethod = Mixture | Selection | Weighting | str | Mapping[str, Any]


def train(
    *,
    model: Model,
    tasks: Tasks,
    budget: str | int | Mapping[str, Any],
    out: str | Path,
    mixture: Method | None = None,
    weights: Weighting | str | Mapping[str, Any] = "uniform",
    seed: int = 0,
    progress: bool = False,
    **blocks: Any,  # noqa: ANN401
) -> Run:
    """Train one model within a budget.

    Args:
        model: A Hub name, a folder, or the recipe's ``model`` block.
        tasks: What `load_tasks` returned, a path, or the recipe's ``tasks`` block.
        budget: ``"5%"`` of the supervised tokens, ``"2M"``, ``"2M processed"`` or ``{"total": "1e17 FLOPs"}``.
        out: The run folder; an unfinished run of the same recipe in it is resumed.
        mixture: A method, its name, or the recipe's ``mixture`` block; uniform, or proportional to what a selection keeps.
        weights: A method, its name, or the recipe's ``weights`` block.
        seed: Of everything random.
        progress: Show on stderr what the command line shows: bars in a terminal, lines elsewhere.
        **blocks: ``lora``, ``training`` (Hugging Face's argument names), ``validation`` and the rest, as in a recipe;
            ``selection``, ``objective`` and ``kind`` may be objects, names or blocks too. ``targets`` is what `load_tasks`
            takes, a path, a list of paths or a mapping of names to paths or rows; what it returned; or the recipe's block.

    Raises:
        ApportionError: Anything wrong with the arguments, data or model.
    """
    values = _values(model, tasks, budget, {"mixture": mixture, "weights": weights, "seed": seed, **blocks})
    recipe, folder = parse_recipe(values), _folder(out)
    if not _asked(progress):
        return run_recipe(recipe, folder)
    with shown() as runs:
        return run_recipe(recipe, folder, runs.run(recipe.title))


def compare(
    methods: Sequence[AnyMethod] | Mapping[str, AnyMethod],
    *,
    model: Model,
    tasks: Tasks,
    budget: str | int | Mapping[str, Any],
    out: str | Path,
    seeds: Sequence[int] = (0,),
    progress: bool = False,
    **blocks: Any,  # noqa: ANN401
) -> Comparison:
    """Train by several methods under one budget, with seeds, and summarise.

    Args:
        methods: Mixtures, selections or weights, named by their type and, where several share one, by the settings that set
            them apart: ``adapt-floor-0.2``; or a mapping of names to them. What is selected is trained on as it is.
        model: As for `train`, like the arguments that are not named here.
        tasks: As for `train`.
        budget: Of each run.
        out: The comparison's folder; runs go to ``<out>/<name>/seed-<s>/``.
        seeds: One run each for every method.
        progress: As for `train`.
        **blocks: As for `train`.

    Raises:
        ApportionError: Anything wrong with the arguments, data or model.
    """
    arms = arms_of(methods)
    values = {
        **_values(model, tasks, budget, blocks),
        "arms": arms,
    }
    numbers, folder = _seeds(seeds), _folder(out)
    if not _asked(progress):
        return compare_recipe(values, list(arms), numbers, folder)
    with shown() as runs:
        return compare_recipe(values, list(arms), numbers, folder, lambda arm, seed: runs.run(f"{arm}, seed {seed}"))


def select(
    selection: Selection | str | Mapping[str, Any],
    *,
    model: Model,
    tasks: Tasks,
    out: str | Path,
    seed: int = 0,
    **blocks: Any,  # noqa: ANN401
) -> Selected:
    """Score the examples of tasks toward targets and write which are kept; `train` takes the file as a selection.

    Args:
        selection: A method, its name, or the recipe's ``selection`` block.
        model: As for `train`, like the arguments that are not named here.
        tasks: As for `train`.
        out: The Parquet file: id, task, score, rank, kept, reason.
        seed: Of everything random.
        **blocks: As for `train`; ``targets`` above all.

    Raises:
        ApportionError: Anything wrong with the arguments, data or model, or a file that is there already.
    """
    values = _values(model, tasks, "100%", {"selection": selection, "seed": seed, **blocks})
    return select_recipe(parse_recipe(values), _folder(out, "a file"))


def export(run: Run | str | Path, to: str | None = None, out: str | Path | None = None) -> Exported:
    """Hand a finished run's mixture on to another trainer, as a folder with its config and the train splits.

    Args:
        run: What `train` returned, or a run folder.
        to: The trainer's name: ``trl``, ``axolotl``, ``llama-factory``, ``open-instruct`` or ``datasets``; without one the
            shares are returned and nothing is written.
        out: A new folder; needed with ``to``, and for nothing else.

    Raises:
        ApportionError: No finished run, an unknown trainer, one that cannot train on these data, data that changed since,
            or a folder that is taken.
    """
    folder = run.path if isinstance(run, Run) else _folder(run, "a run folder", "run")
    if (to is None) != (out is None):
        raise ApportionError("An export needs both: 'to', a trainer, and 'out', a new folder.")
    return shares_in(folder) if to is None else export_run(folder, to, _folder(out))


def evaluate(
    run: Run | str | Path,
    tasks: str | Sequence[str] | None = None,
    *,
    limit: int | None = None,
    shots: int | None = None,
    chat: bool = False,
    run_code: bool = False,
) -> Evaluated:
    """Ask a finished run's model benchmarks, through lm-evaluation-harness; what it was asked already is not asked again.

    Args:
        run: What `train` returned, or a run folder.
        tasks: ``bbh``, ``gsm8k``, the suite ``adapt11``, names of the harness or YAML files of its format; what the run's
            recipe names where None.
        limit: Examples of each task; all where None.
        shots: Examples shown before each question; the task's own number where None.
        chat: Whether questions go through the tokenizer's chat template.
        run_code: Whether code that the model writes may be run, apart from this process and without a network.

    Raises:
        ApportionError: No finished run, benchmarks that are not at hand or do not fit the model, or a folder in use.

    Cost: charged to `evaluate` in the run's ``ledger.json``.
    """
    path = run.path if isinstance(run, Run) else _folder(run)
    settings = {"limit": limit, "shots": shots, "chat": chat, "run_code": run_code}
    return evaluate_run(
        path, None if tasks is None else validate(EvaluateSpec, {"tasks": tasks, **settings}, "evaluate")
    )


def generate(  # noqa: PLR0913
    model: Run | str | Path,
    prompts: Sequence[str | Mapping[str, Any]],
    *,
    cache: CacheMethod | str | Mapping[str, Any] = "dense",
    kv: str | int | None = None,
    answer: int = 128,
    thinking: int | str | Mapping[str, int] | ThinkingBudget | None = None,
    tags: str | Mapping[str, Any] | ThinkingTags | None = None,
    total: str | Mapping[str, Any] | None = None,
    resident: str | None = None,
    over: str = "refuse",
    batch_size: int = 1,
    seed: int = 0,
    **sampling: Any,  # noqa: ANN401
) -> list[Answered]:
    """Answer prompts under a budget of what each decode step reads of its cache.

    Args:
        model: What `train` returned, a run folder, or a model's folder or Hub name.
        prompts: Texts, or mappings with ``prompt`` or ``messages``.
        cache: How the cache is read: a method, its name, or a mapping with a ``type``.
        kv: Cached tokens a decode step and KV head: ``256``, ``"16 pages"`` or ``"25%"``; all where None.
        answer: Longest answer, in tokens.
        thinking: Tokens that may be thought before: ``512``, ``"all"``, or a mapping with ``most``, ``least`` and
            ``ignore``; nothing is thought where None.
        tags: What thinking stands between: ``"<think>,</think>"``, or a mapping with ``open``, ``close``, ``wait`` and
            ``answer``; the run's own where None, or ``<think>`` and ``</think>`` where these are tokens.
        total: What a request may take in all: ``"4k tokens"`` or ``"1e12 FLOPs"``; no limit where None.
        resident: Bytes of cache that a request may keep on the device: ``"96 MB"``; no limit where None.
        over: What is done with a prompt that is too long: ``refuse``, or ``middle``, which cuts its middle out.
        batch_size: Requests at once.
        seed: Of draws.
        **sampling: What transformers' ``generate`` takes: ``do_sample``, ``temperature``, ``num_beams``, ...

    Returns:
        For each prompt its ``text``, its ``ids``, its ``thinking`` and whether the end of that was ``forced``, and in
        ``served`` what it took: tokens by kind, bytes, FLOPs and seconds.

    Raises:
        ApportionError: A model that does not load, a prompt that is too long, or a budget that the method cannot keep.

    Cost: in each answer; no ledger is charged.
    """
    limits = {"kv": kv, "answer": answer, "thinking": thinking, "total": total, "resident": resident, "over": over}
    budget = InferenceBudget.parse(limits)
    method, words = cache_method(cache), None if tags is None else ThinkingTags.parse(tags)
    answering = load_answering(model.path if isinstance(model, Run) else model)
    rows = [{"prompt": prompt} if isinstance(prompt, str) else dict(prompt) for prompt in prompts]
    ids = answering.tags(words, budget)
    requests = requests_of(rows, answering.tokenizer, budget, answering.positions, ids)
    engine = answering.engine(method, budget, batch_size=batch_size, sampling=sampling, tags=ids)
    return [answered for batch in engine.answer(requests, seed=seed) for answered in batch]


def reinforce(
    start: Run | str | Path,
    *,
    budgets: Sequence[int],
    tasks: Tasks,
    budget: str | Mapping[str, Any],
    out: str | Path,
    seed: int = 0,
    progress: bool = False,
    **settings: Any,  # noqa: ANN401
) -> Reinforced:
    """Train a finished run on, by rewards for answers within budgets of thinking.

    Args:
        start: What `train` returned, or a run folder; its recipe has a block ``thinking``.
        budgets: Tokens of thinking, increasing.
        tasks: As for `train`.
        budget: ``{"generated": "2M"}``, or ``{"total": "1e15 FLOPs"}``.
        out: The run folder; an unfinished run of the same recipe in it is resumed.
        seed: Of all draws.
        progress: As for `train`.
        **settings: Keys of the recipe's ``rl`` block (``type``, ``prior``, ``rollouts``, ``rewards``, ...), and the blocks
            ``mixture``, ``validation`` and ``training``.

    Raises:
        ApportionError: Anything wrong with the arguments, the start or the data, or TRL missing.
    """
    place = start.path if isinstance(start, Run) else _folder(start, "a run folder", "start")
    blocks: dict[str, Any] = {
        key: settings.pop(key) for key in ("mixture", "validation", "training") if key in settings
    }
    if "mixture" in blocks:
        blocks["mixture"] = MIXTURES.block(blocks["mixture"], "mixture")
    rl = {"start": str(place), "budgets": list(budgets), **settings}
    recipe = parse_reinforcing({"rl": rl, "tasks": _tasks(tasks), "budget": budget, "seed": seed, **blocks})
    if not _asked(progress):
        return reinforce_recipe(recipe, _folder(out))
    with shown() as runs:
        return reinforce_recipe(recipe, _folder(out), runs.run(recipe.title))


def _values(model: Model, tasks: Tasks, budget: object, blocks: Mapping[str, Any]) -> dict[str, Any]:
    given = {key: value for key, value in blocks.items() if value is not None or key == "seed"}
    families = (
        ("kind", KINDS),
        ("objective", OBJECTIVES),
        ("selection", SELECTIONS),
        ("mixture", MIXTURES),
        ("weights", WEIGHTS),
    )
    for family, registry in families:
        if family in given:
            given[family] = registry.block(given[family], family)
    if "targets" in given:
        given["targets"] = _targets(given["targets"])
    return {"model": _model(model), "tasks": _tasks(tasks), "budget": budget} | given


def _model(model: object) -> dict[str, Any]:
    if isinstance(model, Mapping):
        return dict(model)
    if not isinstance(model, str | os.PathLike):
        raise ApportionError(f"'model' must be a name, a folder or a mapping of settings, not {model!r}.")
    return {"name": os.fspath(model)}


def _tasks(tasks: object) -> dict[str, Any]:
    if isinstance(tasks, TaskCollection):
        if tasks.spec is None:
            raise ApportionError(
                "These tasks were not read by load_tasks: write them to a file, so a run can name them."
            )
        return tasks.spec.model_dump(mode="json", exclude_none=True)
    if isinstance(tasks, Mapping):
        return dict(tasks)
    if not isinstance(tasks, str | os.PathLike):
        raise ApportionError(
            f"'tasks' must be what load_tasks returned, a path or a mapping of settings, not {tasks!r}."
        )
    return {"path": os.fspath(tasks)}


def _targets(targets: object) -> dict[str, Any]:
    if isinstance(targets, TaskCollection):
        # How they were split there does not count here.
        return {key: value for key, value in _tasks(targets).items() if key in _read_keys(targets.spec)}
    if isinstance(targets, Mapping) and {"path", *TargetsSpec.model_fields} & set(targets):
        return {key: plain_path(value) if key == "path" else value for key, value in targets.items()}
    if not isinstance(targets, str | os.PathLike | Mapping | list | tuple):
        raise ApportionError(
            "'targets' must be a path, a list of paths, a mapping of names to paths or rows, what load_tasks returned, or "
            f"a mapping of settings, not {targets!r}."
        )
    return {"path": plain_path(targets)}


def _read_keys(spec: object) -> set[str]:
    return {*SourceSpec.model_fields, *(getattr(spec, "model_extra", None) or {})}


def _folder(out: object, what: str = "a folder", key: str = "out") -> Path:
    if not isinstance(out, str | os.PathLike) or "\0" in (path := os.fspath(out)):
        raise ApportionError(f"'{key}' must be {what}, not {out!r}.")
    return Path(path)


def _seeds(seeds: object) -> list[int]:
    if not isinstance(seeds, Iterable) or isinstance(seeds, str | bytes):
        raise ApportionError(f"'seeds' must be a list of whole numbers, not {seeds!r}.")
    given = list(seeds)
    for seed in given:
        if isinstance(seed, bool) or not isinstance(seed, Integral):
            raise ApportionError(f"'seeds' must be a list of whole numbers; {seed!r} is none.")
    return [int(seed) for seed in given]


def _asked(progress: object) -> bool:
    if not isinstance(progress, bool):
        raise ApportionError(f"'progress' must be true or false, not {progress!r}.")
    return progress and rank() == 0  # of several processes the first one speaks
