"""What benchmarks take is counted as it is worked on: to the token, and in FLOPs as torch counts them."""

import pytest
import torch
from lm_eval.api.instance import Instance
from torch.utils.flop_counter import FlopCounterMode

from apportion.budget.prices import Work
from apportion.models.flops import ModelFlops
from tests.evaluation.models import asker, model, tokenizer
from tests.tiny import ARCHITECTURES


def scored(pairs):
    return [Instance("loglikelihood", {}, pair, i) for i, pair in enumerate(pairs)]


def written(prompts, **settings):
    settings = {"until": [], "max_gen_toks": 6, "do_sample": False, **settings}
    return [Instance("generate_until", {}, (prompt, settings), i) for i, prompt in enumerate(prompts)]


PAIRS = [("the task", " one"), ("a longer question, this", " yes indeed"), ("the task", " two more words"), ("x", " y")]


def lengths(pairs):
    """Return (tokens of the pass, tokens read) of each pair, by the tokenizer alone."""
    found = []
    for context, continuation in pairs:
        whole = tokenizer().encode(context + continuation)
        found.append((len(whole) - 1, len(whole) - len(tokenizer().encode(context))))
    return found


def test_scored_pairs_are_counted_one_by_one():
    module = model()
    lm = asker(module, batch_size=2)
    lm.loglikelihood(scored(PAIRS))
    known = lengths(PAIRS)
    prices = ModelFlops.of(module)
    assert lm.tally.processed == sum(n for n, _ in known)
    assert lm.tally.supervised == sum(read for _, read in known)
    assert lm.tally.flops == pytest.approx(sum(prices.forward(Work(n, n * n)) for n, _ in known), rel=1e-12)
    assert lm.tally.padded >= lm.tally.processed


def test_continuations_that_share_a_pass_are_counted_once():
    """Choices of one token each: the harness reads all of them from one pass."""
    choices = [("the task is", f" {letter}") for letter in "abcd"]
    last = {tuple(tokenizer().encode(context + choice)[:-1]) for context, choice in choices}
    lm = asker(model())
    lm.loglikelihood(scored(choices))
    assert lm.tally.processed == sum(map(len, last))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_scoring_costs_what_torch_counts(architecture):
    module = model(architecture)
    module.set_attn_implementation("eager")
    lm = asker(module, batch_size=1)
    with FlopCounterMode(display=False) as counter:
        lm.loglikelihood(scored(PAIRS))
    assert lm.tally.flops == pytest.approx(counter.get_total_flops(), rel=0.02)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_writing_costs_what_torch_counts_but_for_heads_that_nobody_reads(architecture):
    """A prompt's logits are made for its last token alone; the price, as of all passes, has them for every one."""
    module = model(architecture)
    module.set_attn_implementation("eager")
    module.generation_config.eos_token_id = None
    lm = asker(module, batch_size=1)
    prompts = ["a first question", "another one of some more words"]
    with FlopCounterMode(display=False) as counter:
        lm.generate_until(written(prompts))
    head = 2 * module.get_output_embeddings().weight.numel()
    unread = sum(len(tokenizer().encode(prompt)) - 1 for prompt in prompts) * head
    assert lm.tally.flops - unread == pytest.approx(counter.get_total_flops(), rel=0.02)


@pytest.mark.parametrize("most", [1, 2, 6])
def test_an_answer_of_g_tokens_is_a_pass_of_p_and_g_minus_one_of_one(most):
    module = model()
    module.generation_config.eos_token_id = None
    lm = asker(module, batch_size=2)
    prompts = ["short", "a prompt that is somewhat longer"]
    lm.generate_until(written(prompts, max_gen_toks=most))
    sizes = [len(tokenizer().encode(prompt)) for prompt in prompts]
    assert lm.tally.supervised == 2 * most
    assert lm.tally.processed == sum(sizes) + 2 * (most - 1)
    assert lm.tally.padded == 2 * (max(sizes) + most - 1)
    pairs = sum(p * p + sum(p + i for i in range(1, most)) for p in sizes)
    assert lm.tally.flops == pytest.approx(ModelFlops.of(module).forward(Work(lm.tally.processed, pairs)), rel=1e-12)


def test_what_is_computed_behind_the_end_of_a_text_is_padding():
    """Each row ends where it first writes the token that ends texts; the batch goes on to its longest row."""
    module = model()
    module.generation_config.eos_token_id = None
    prompts = ["alpha", "some beta words", "gamma"]
    free = {}
    for prompt in prompts:
        ids = torch.tensor([tokenizer().encode(prompt)])
        free[prompt] = module.generate(ids, max_new_tokens=6, do_sample=False)[0, ids.shape[1] :].tolist()
    end = free["some beta words"][2]
    wanted = sum(row.index(end) + 1 if end in row else 6 for row in free.values())
    module.generation_config.eos_token_id = end
    lm = asker(module, batch_size=1)
    lm.generate_until(written(prompts))
    assert lm.tally.supervised == wanted < 18


@pytest.mark.parametrize("batch_size", [1, 3])
def test_dry_it_counts_the_same_without_a_pass(batch_size):
    real, dry = asker(model(), batch_size), asker(model().to("meta"), batch_size, dry=True)
    real.model.generation_config.eos_token_id = None
    for lm in (real, dry):
        lm.loglikelihood(scored(PAIRS))
        lm.generate_until(written(["one", "one and two"]))
    assert real.tally.supervised == dry.tally.supervised
    assert real.tally.processed == dry.tally.processed
    assert real.tally.flops == pytest.approx(dry.tally.flops, rel=1e-12)


def test_what_was_counted_is_handed_on_once():
    lm = asker(model())
    lm.loglikelihood(scored(PAIRS))
    spent = lm.tally.taken()
    assert spent["processed"] > 0 and lm.tally.processed == 0 and lm.tally.flops == 0.0
