"""What a trained hypernetwork answers on tasks that it never saw: with its own adapter, and with ones that should not do."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerBase

from apportion.models.loading import load_model
from apportion.models.tagi.adapting import Output, TagiModel
from apportion.models.tagi.building import encode_instructions
from apportion.models.tagi.slots import Factors, Given
from apportion.plans.hypernet import load_hypernet
from apportion.signals.losses import example_nll, mean_by_task
from apportion.tasks.batches import Batch, collate
from apportion.tasks.encoded import EncodedSplit, to_batch
from apportion.tasks.encoder import Encoder
from apportion.tasks.example import Example
from studies.evaluation.generation import answers
from studies.evaluation.metrics import exact_match, means, rouge_l

Scores = dict[str, float]
# Examples answered, or read, at a time.
BATCH = 128
CONTROLS = ("own", "shuffled", "mean_adapter", "no_adapter")


@dataclass(frozen=True)
class Question:
    """One held-out example."""

    task: str
    prompt: str
    references: tuple[str, ...]


def held_out(folder: Path) -> tuple[list[Question], dict[str, str]]:
    """Return all rows of the JSONL files under ``folder``, a file a task, and the tasks' instructions."""
    questions, instructions = [], {}
    for file in sorted(folder.glob("*.jsonl")):
        for row in map(json.loads, file.read_text("utf-8").splitlines()):
            instructions[file.stem] = row["instruction"]
            references = tuple(row.get("references", [row["output"]]))
            questions.append(Question(file.stem, row["input"], references))
    return questions, instructions


def scores(questions: Sequence[Question], said: Sequence[str]) -> Scores:
    """Return exact match and ROUGE-L, each the mean over tasks, 0 to 1."""
    by_task: dict[str, dict[str, list[float]]] = {"exact_match": {}, "rouge_l": {}}
    for question, answer in zip(questions, said, strict=True):
        by_task["exact_match"].setdefault(question.task, []).append(exact_match(answer, question.references))
        by_task["rouge_l"].setdefault(question.task, []).append(rouge_l(answer, question.references))
    return {name: means(found).macro for name, found in by_task.items()}


def evaluate(run: Path, folder: Path, trained_on: Mapping[str, str], lengths: tuple[int, int]) -> dict[str, Scores]:
    """Answer every held-out question of ``folder`` in each way, score the answers, and measure the references' loss.

    ``own``: each task's instruction; ``shuffled``: another held-out task's, the next one in order; ``mean_adapter``: the
    mean Delta W of the tasks ``trained_on``, whatever is asked; ``no_adapter``: the base model. Where the hypernetwork
    fuses instructions too, the last two leave that out.

    Args:
        run: A finished run of a hypernetwork.
        folder: JSONL files, one a task.
        trained_on: Instructions of the training tasks.
        lengths: Longest example and longest answer, in tokens.
    """
    model, tokenizer, _ = load_hypernet(run)
    questions, texts = held_out(folder)
    names = list(texts)
    found = {}
    for control in CONTROLS:
        asked = names[1:] + names[:1] if control == "shuffled" else names
        model.reader.instruct(
            encode_instructions({f"'{name}'": texts[name] for name in asked}, tokenizer, model.config)
        )
        fixed: Factors | None = None
        if control == "mean_adapter":
            fixed = mean_factors(model, encode_instructions(trained_on, tokenizer, model.config))
        elif control == "no_adapter":
            fixed = {}
        adapted = _Adapted(model, fixed)
        said = _answers(adapted.generate, model.config, tokenizer, questions, names, lengths)
        found[control] = scores(questions, said) | {"loss": loss(adapted, tokenizer, questions, names, lengths[0])}
    return found


def evaluate_plain(run: Path, folder: Path, lengths: tuple[int, int], *, instructed: bool) -> Scores:
    """Answer with an ordinary run's model, the instruction standing in the prompt or not at all."""
    model: Any = load_model(AutoModelForCausalLM, str(run / "model"), "model").eval()
    tokenizer = AutoTokenizer.from_pretrained(str(run / "model"))
    questions, texts = held_out(folder)
    if instructed:
        questions = [
            replace(q, prompt="\n\n".join(part for part in (texts[q.task], q.prompt) if part)) for q in questions
        ]
    generate, names = partial(_ignoring_tasks, model), list(texts)
    said = _answers(generate, model.config, tokenizer, questions, names, lengths)
    return scores(questions, said) | {"loss": loss(model, tokenizer, questions, names, lengths[0])}


def loss(
    model: Any,  # noqa: ANN401
    tokenizer: PreTrainedTokenizerBase,
    questions: Sequence[Question],
    names: Sequence[str],
    longest: int,
) -> float:
    """Return the loss of the questions' first references, in nats a token: a task's mean, and the mean over tasks."""
    pairs = [Example(q.prompt, q.references[0], str(k)) for k, q in enumerate(questions)]
    ids, tokens, _ = Encoder(tokenizer, longest).encode(pairs)
    encoded, tasks = EncodedSplit(to_batch(ids, tokens)), [names.index(questions[int(k)].task) for k in ids]
    order = sorted(range(len(ids)), key=lambda k: len(tokens[k]))
    sums, counts = torch.zeros(len(ids)), torch.zeros(len(ids))
    for at in range(0, len(ids), BATCH):
        chosen = order[at : at + BATCH]
        with torch.no_grad():
            batch = collate([encoded.example(k) for k in chosen], [tasks[k] for k in chosen], 0)
            sums[chosen], counts[chosen] = example_nll(model, batch)
    return float(mean_by_task(sums, counts, torch.tensor(tasks), len(names)).mean())


def mean_factors(model: TagiModel, instructions: Sequence[Tensor]) -> Factors:
    """Return factors whose product is the mean of the tasks' A B: the tasks' side by side along the rank."""
    with torch.no_grad():
        made = [model.factors(model.reader.read(ids[None], torch.ones_like(ids[None])).pooled) for ids in instructions]
    return {
        slot.name: (
            torch.cat([factors[slot.name][0] for factors in made], 2),
            torch.cat([factors[slot.name][1] for factors in made], 1) / len(made),
        )
        for slot in model.slots
    }


class _Adapted:
    """A hypernetwork that adapts by the tasks' instructions or, where there are ``fixed`` factors, always by these."""

    takes_batches = True

    def __init__(self, model: TagiModel, fixed: Factors | None) -> None:
        self.model, self.fixed = model, fixed

    def _given(self, tasks: Tensor) -> Given | None:
        return None if self.fixed is None else Given(self.fixed, self.model.spec.scale, torch.zeros_like(tasks))

    def __call__(self, batch: Batch) -> Output:
        given = self._given(batch.tasks)
        return self.model(batch) if given is None else Output(self.model.logits(batch, given))

    def generate(self, input_ids: Tensor, attention_mask: Tensor, tasks: Tensor, **settings: Any) -> Tensor:  # noqa: ANN401
        return self.model.generate(input_ids, attention_mask, tasks, self._given(tasks), **settings)


def _ignoring_tasks(model: Any, tasks: Tensor, **settings: Any) -> Tensor:  # noqa: ANN401
    made: Tensor = model.generate(**settings)
    return made


def _answers(
    generate: Callable[..., Tensor],
    config: Any,  # noqa: ANN401
    tokenizer: PreTrainedTokenizerBase,
    questions: Sequence[Question],
    names: Sequence[str],
    lengths: tuple[int, int],
) -> list[str]:
    return answers(
        generate,
        Encoder(tokenizer, lengths[0]),
        [question.prompt for question in questions],
        lengths[1],
        BATCH,
        tasks=[names.index(question.task) for question in questions],
        encoder_decoder=config.is_encoder_decoder,
    )
