"""Prices against torch's flop counter: every way, head and family, one example and batches of several tasks."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.func import functional_call, jvp
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM

from apportion.budget.prices import Work
from apportion.models.tagi.adapting import TagiModel
from apportion.models.tagi.prices import TagiPrices
from apportion.signals.losses import example_losses, example_nll
from tests.models.tagi.models import HEAD_NAMES, WAYS, base_config, batch_of, example, make_base, make_tagi

ONE = [(1, example(5, 3))]
# Rows of one length, so that nothing is padded, and of three different tasks, one of them twice.
SEVERAL = [(0, example(5, 3, 0)), (2, example(5, 3, 1)), (0, example(5, 3, 2)), (1, example(5, 3, 3))]
SAME = 1e-9


def priced(family, *, lengths=(6, 6, 6), config=None, **spec):
    return make_tagi(
        family, lengths=lengths, on=make_base(family, attn_implementation="eager", **(config or {})), **spec
    )


def counted(run):
    with FlopCounterMode(display=False) as counter:
        run()
    return counter.get_total_flops()


def forward_and_backward(model, batch):
    model.zero_grad()
    example_losses(model, batch).sum().backward()


def agrees(model, one=ONE, several=SEVERAL):
    """Measuring, differentiating and training cost what torch counts, to rounding."""
    prices, one, several = TagiPrices.of(model), batch_of(one), batch_of(several)
    assert one.padded == one.processed and several.padded == several.processed
    model.reader.read_all()
    assert prices.forward(several.work) == pytest.approx(counted(lambda: example_nll(model, several)), rel=SAME)
    both = prices.forward(one.work) + prices.backward(one.work)
    assert both == pytest.approx(counted(lambda: forward_and_backward(model, one)), rel=SAME)
    model.train()
    assert prices.train(several.work) == pytest.approx(counted(lambda: forward_and_backward(model, several)), rel=SAME)


TRAINED = ("frozen", "norms_and_embeddings", "all")


# Each way of reading with one of the three, each of the three with every family.
@pytest.mark.parametrize(
    ("family", "ways", "trained"),
    [(*way, trained) for k, way in enumerate(WAYS) for j, trained in enumerate(TRAINED) if (j + k) % 3 == 0],
)
def test_ways_of_reading_and_what_is_trained(family, ways, trained):
    agrees(priced(family, base=trained, **ways))


@pytest.mark.parametrize(
    ("head", "family"), zip([*HEAD_NAMES, "none"], ["t5", "llama", "t5", "qwen3", "llama"], strict=True)
)
def test_heads_with_a_teacher_that_reads_the_instruction(family, head):
    agrees(priced(family, head=head, fusion=True, kl=1.0, base="norms_and_embeddings"))


def test_alignment_with_lora_teachers():
    for alignment in ("delta_w", "factors"):
        model = priced("llama", alignment=alignment)
        shape = {s.name: (torch.randn(s.d_in, 3), torch.randn(3, s.d_out)) for s in model.slots}
        model.distiller.targets = {0: shape, 2: shape}
        agrees(model)


def test_start_tokens_that_are_left_out_for_the_teacher_are_not_priced():
    model = priced("llama", kl=1.0)
    for task, ids in enumerate(model.reader.instructions):
        model.reader.instructions[task] = torch.cat([ids.new_tensor([1]), ids[1:]])
    opened = [(task, (np.array([1, *ids[1:]]), labels)) for task, (ids, labels) in SEVERAL]
    agrees(model, opened[:1], opened)


@pytest.mark.parametrize("family", ["t5", "llama"])
def test_pretraining_reads_each_texts_own_instruction(family):
    for trained in ("frozen", "all"):
        model = priced(family, stage="pretrain", base=trained, fusion=True, kl=1.0)
        agrees(model, [(0, example(9, 7))], [(0, example(9, 7))])


def test_instructions_of_other_lengths_are_priced_one_by_one():
    model = priced("t5", base="all", fusion=True, memory=True, lengths=(3, 11, 6))
    prices = TagiPrices.of(model)
    for task in range(3):
        batch = batch_of([(task, example(5, 3))])
        assert prices.forward(batch.work) == pytest.approx(counted(lambda: example_nll(model, batch)), rel=SAME)  # noqa: B023


def test_reading_ahead_and_what_a_frozen_base_saves():
    model = priced("qwen3", lengths=(4, 9, 2))
    assert TagiPrices.of(model).ahead().flops == pytest.approx(counted(model.reader.read_all), rel=SAME)
    work = batch_of(SEVERAL).work
    trained = TagiPrices.of(priced("qwen3", base="all"))
    alone = sum(trained.forward(batch_of([one]).work) for one in SEVERAL)
    assert trained.forward(work) < alone  # one of the tasks is read and written once for two examples
    assert trained.forward(Work(0, 0)) == 0 == trained.in_run_read(5)


def test_a_pass_in_forward_mode():
    model = priced("llama", fusion=True)
    model.reader.read_all()
    prices, batch = TagiPrices.of(model), batch_of(SEVERAL)
    here = {name: p.detach() for name, p in model.named_parameters() if p.requires_grad}

    def losses(at):
        return functional_call(model, at, (batch,)).logits

    along = {name: torch.randn_like(p) for name, p in here.items()}
    assert prices.jvp(batch.work) == pytest.approx(counted(lambda: jvp(losses, (here,), (along,))), rel=0.02)


@pytest.mark.parametrize(("family", "ways"), [WAYS[1], WAYS[5], WAYS[7]])
def test_shapes_alone_give_the_same_prices(family, ways):
    model = priced(family, base="norms_and_embeddings", kl=1.0, **ways)
    kind = AutoModelForSeq2SeqLM if family == "t5" else AutoModelForCausalLM
    with torch.device("meta"):
        shapes = TagiModel(kind.from_config(base_config(family)), model.spec, model.reader.instructions)
    work = batch_of(SEVERAL).work
    mine, theirs = TagiPrices.of(shapes), TagiPrices.of(model)
    assert mine.forward(work) == theirs.forward(work) and mine.train(work) == theirs.train(work)
    assert mine.ahead().flops == theirs.ahead().flops
