"""`apportion generate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from apportion.cli._options import Json, print_json, quiet_libraries

ModelOrRun = Annotated[
    str, typer.Argument(metavar="MODEL_OR_RUN", help="A finished run, or a model's folder or Hub name.")
]
Prompts = Annotated[Path, typer.Option(metavar="FILE", help="JSON Lines with 'prompt' or 'messages'.")]
Over = Annotated[str, typer.Option(help="A prompt that is too long: refuse, or middle, which cuts its middle out.")]
BatchSize = Annotated[int, typer.Option(min=1, help="Requests answered at once.")]


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
    """Answer prompts, under a budget of what is read of the cache.

    Each line of the file holds the prompt, the answer and the tokens by kind; FILE.inference.json says what all of it took.
    Stopped, the same command goes on.
    """
    from apportion.budget import InferenceBudget
    from apportion.plans.recipe import overridden

    budget = InferenceBudget.parse({"kv": kv, "answer": answer, "prompt": prompt, "over": over})
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
    engine = answering.engine(method, budget, batch_size=batch_size, sampling=sampling)
    if as_json:
        done = generate_file(answering, engine, prompts, out, seed=seed)
        print_json({"path": str(done.path), **done.summary})
        return
    with counted(f"answering with {cache}", "prompts") as told:
        done = generate_file(answering, engine, prompts, out, seed=seed, told=told)
    from apportion.reports import words

    sums, step = done.summary["sums"], done.summary["a_step"]
    typer.echo(
        f"Answered {words.several(done.requests, 'prompt')}: {sums['prompt']:,} tokens of prompts, {sums['answer']:,} of "
        f"answers; {words.flops(sums['flops'])} FLOPs.\n"
        f"A decode step read {words.size(step['read'])} of a cache of {words.size(step['resident'])} on average, "
        f"{words.size(sums['resident_peak'])} at most.\n"
        f"Answers: {done.path}"
    )
