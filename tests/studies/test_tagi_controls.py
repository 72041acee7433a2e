"""The loss of held-out references is what each is, read alone, and controls read no instruction."""

import pytest
import torch
from studies.tagi.controls import Question, _Adapted, loss, mean_factors
from torch.nn import functional as F

from apportion.tasks import load_tasks, train_tokenizer
from apportion.tasks.encoder import Encoder
from tests.models.tagi.models import make_tagi
from tests.tiny import tiny_model

QUESTIONS = [
    Question("one", "reverse abcd", ("dcba",)),
    Question("two", "sort dbca now", ("abcd now", "another")),
    Question("one", "a", ("b",)),
]
NAMES = ["one", "two"]


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(load_tasks(source="playground", scale=0.02), "character", 128)


def literal(model, tokenizer):
    """The mean over tasks of a task's summed loss over its tokens, a question at a time, nothing padded."""
    sums, counts = dict.fromkeys(NAMES, 0.0), dict.fromkeys(NAMES, 0)
    for question in QUESTIONS:
        (prompt,) = Encoder(tokenizer, 64).prompts([question.prompt], 32)
        prompt, answer = prompt.tolist(), tokenizer(question.references[0])["input_ids"] + [tokenizer.eos_token_id]
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([prompt + answer])).logits[0, len(prompt) - 1 : -1]
        sums[question.task] += float(F.cross_entropy(logits, torch.tensor(answer), reduction="sum"))
        counts[question.task] += len(answer)
    return sum(sums[name] / counts[name] for name in NAMES) / 2


def test_the_loss_is_that_of_each_reference_read_alone(tokenizer):
    model = tiny_model("llama").eval()
    assert loss(model, tokenizer, QUESTIONS, NAMES, 64) == pytest.approx(literal(model, tokenizer), rel=1e-5)


def test_without_an_adapter_it_is_the_base_models_and_with_the_mean_no_tasks_own(tokenizer):
    base = tiny_model("llama", hidden=16).eval()
    bare = literal(base, tokenizer)
    model = make_tagi("llama", on=base, lengths=(5, 9))
    none, own = (loss(_Adapted(model, fixed), tokenizer, QUESTIONS, NAMES, 64) for fixed in ({}, None))
    mean = loss(_Adapted(model, mean_factors(model, model.reader.instructions)), tokenizer, QUESTIONS, NAMES, 64)
    assert none == pytest.approx(bare, rel=1e-5)
    assert len({round(value, 4) for value in (none, own, mean)}) == 3
