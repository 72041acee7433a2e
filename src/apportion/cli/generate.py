"""`apportion generate`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from apportion._errors import ApportionError
from apportion.cli._options import Json, print_json, quiet_libraries

if TYPE_CHECKING:
    from apportion.budget import ThinkingBudget
    from apportion.thinking.tags import ThinkingTags

ModelOrRun = Annotated[
    str, typer.Argument(metavar="MODEL_OR_RUN", help="A finished run, or a model's folder or Hub name.")
]
Prompts = Annotated[Path, typer.Option(metavar="FILE", help="JSON Lines with 'prompt' or 'messages'.")]
Over = Annotated[str, typer.Option(help="A prompt that is too long: refuse, or middle, which cuts its middle out.")]
BatchSize = Annotated[int, typer.Option(min=1, help="Requests answered at once.")]
Tags = Annotated[
    str | None,
    typer.Option(
        metavar="OPEN,CLOSE",
        help="What thinking stands between, such as '<think>,</think>'; maybe a third, written in place of an end that is "
        "put off, and a fourth, behind a forced one. [default: the run's own, or <think>,</think> where these are tokens]",
    ),
]
Least = Annotated[int, typer.Option(min=0, help="Tokens of thinking before which its end is put off.")]
Ignore = Annotated[int, typer.Option(min=0, help="How often the end that the model chooses is put off.")]


def thinking_of(texts: Sequence[str], least: int, ignore: int) -> list[ThinkingBudget]:
    """Read budgets of thinking, each with what its end is put off for.

    Raises:
        ApportionError: One that is none, or an end that is put off where nothing is thought.
    """
    from apportion.budget import InferenceBudget

    if not texts and (least or ignore):
        raise ApportionError("'--least' and '--ignore' put the end of thinking off: give '--thinking' too.")
    read = [InferenceBudget.parse({"thinking": text}).thinking for text in texts]
    blocks = [{"most": one.most, "least": least, "ignore": ignore} for one in read if one is not None]
    found = [InferenceBudget.parse({"thinking": block}).thinking for block in blocks]
    return [one for one in found if one is not None]


def tags_of(text: str | None) -> ThinkingTags | None:
    """Read tags by comma."""
    from apportion.thinking.tags import ThinkingTags

    return None if text is None else ThinkingTags.parse(text)


def generate(  # noqa: PLR0913, PLR0917 - a command's options
    model: ModelOrRun,
    prompts: Prompts,
    out: Annotated[Path, typer.Option(metavar="FILE", help="The file of answers, a line a prompt.")],
    cache: Annotated[str, typer.Option(help="How the cache is read: dense, streaming, quest, adamas, ...")] = "dense",
    kv: Annotated[
        str | None,
        typer.Option(help="Cached tokens a decode step may read in each KV head: 256, '16 pages', 25%. [default: all]"),
    ] = None,
    answer: Annotated[str, typer.Option(help="Longest answer, in tokens.")] = "128",
    thinking: Annotated[
        str | None,
        typer.Option(help="Think before, at most so many tokens: then the end is forced. 'all' is no limit."),
    ] = None,
    least: Least = 0,
    ignore: Ignore = 0,
    tags: Tags = None,
    total: Annotated[
        str | None,
        typer.Option(help="What a request may take in all: '4k tokens' or '1e12 FLOPs'. [default: no limit]"),
    ] = None,
    resident: Annotated[
        str | None, typer.Option(help="Bytes of cache that it may keep on the device: '96 MB'. [default: no limit]")
    ] = None,
    prompt: Annotated[
        str | None, typer.Option(help="Longest prompt, in tokens. [default: what the model has room for]")
    ] = None,
    over: Over = "refuse",
    assignments: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="A setting of the cache, such as page=32; repeatable."),
    ] = None,
    sample: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=VALUE", help="What transformers' generate takes, such as temperature=0.7; repeatable."
        ),
    ] = None,
    batch_size: BatchSize = 1,
    seed: Annotated[int, typer.Option(min=0, help="Of draws, where answers are sampled.")] = 0,
    as_json: Json = False,
) -> None:
    """Answer prompts, under budgets of the cache and of thinking.

    Each line of the file holds the prompt, the answer and the tokens by kind; FILE.inference.json says what all of it took.
    Stopped, the same command goes on.
    """
    from apportion.budget import InferenceBudget
    from apportion.plans.recipe import overridden

    thought, given = thinking_of([] if thinking is None else [thinking], least, ignore), tags_of(tags)
    limits = {"kv": kv, "answer": answer, "prompt": prompt, "over": over, "total": total, "resident": resident}
    budget = InferenceBudget.parse({"thinking": next(iter(thought), None), **limits})
    block = overridden({"type": cache}, assignments or [])
    sampling: dict[str, Any] = overridden({}, sample or [])
    if sampling and "num_beams" not in sampling:
        sampling.setdefault("do_sample", True)
    from apportion.plans.answering import cache_method, load_answering
    from apportion.plans.generate import generate_file
    from apportion.plans.progress import counted

    quiet_libraries()
    method = cache_method(block)
    answering = load_answering(model)
    ids = answering.tags(given, budget)
    engine = answering.engine(method, budget, batch_size=batch_size, sampling=sampling, tags=ids)
    if as_json:
        done = generate_file(answering, engine, prompts, out, seed=seed)
        print_json({"path": str(done.path), **done.summary})
        return
    with counted(f"answering with {cache}", "prompts") as told:
        done = generate_file(answering, engine, prompts, out, seed=seed, told=told)
    from apportion.reports import words

    sums, step = done.summary["sums"], done.summary["a_step"]
    thinks = f"{sums['thinking']:,} of thinking, {sums['inserted']:,} inserted, " if thought else ""
    typer.echo(
        f"Answered {words.several(done.requests, 'prompt')}: {sums['prompt']:,} tokens of prompts, {thinks}"
        f"{sums['answer']:,} of answers; {words.flops(sums['flops'])} FLOPs.\n"
        f"A decode step read {words.size(step['read'])} of a cache of {words.size(step['resident'])} on average, "
        f"{words.size(sums['resident_peak'])} at most.\n"
        f"Answers: {done.path}"
    )
