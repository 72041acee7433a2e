"""Requests are answered as transformers' own generation answers them, and each is told what it took."""

import pytest
import torch

from apportion._errors import ApportionError
from apportion.budget import InferenceBudget, Served
from apportion.budget.prices import Work
from apportion.caches import CACHES, Dense, Streaming
from apportion.decoding.attach import cache_argument, kv_budget
from apportion.decoding.engine import Engine
from apportion.decoding.requests import read_prompts, requests_of
from apportion.models.flops import ModelFlops
from tests.evaluation.models import model, tokenizer
from tests.tiny import ARCHITECTURES

ROWS = [{"prompt": "reverse abc"}, {"prompt": "a much longer prompt that has many more tokens in it"}, {"prompt": "x"}]


def budget(**limits):
    return InferenceBudget.parse({"answer": 8, **limits})


def answered(module, method, limits, *, batch_size=1, rows=ROWS, **sampling):
    engine = Engine(
        module, tokenizer(), ModelFlops.of(module), method, limits, batch_size=batch_size, sampling=sampling or None
    )
    return [one for batch in engine.answer(requests_of(rows, tokenizer(), limits, 512)) for one in batch]


def endless(architecture="llama"):
    module = model(architecture)
    module.generation_config.eos_token_id = None
    return module


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_without_a_budget_it_writes_what_transformers_writes(architecture):
    module = endless(architecture)
    for one in answered(module, Dense(), budget()):
        ids = torch.tensor([one.request.ids])
        wanted = module.generate(ids, max_new_tokens=8, do_sample=False)[0, ids.shape[1] :]
        assert list(one.ids) == wanted.tolist()


# Pages are cut from the first position of a batch, padding included, and flexicache tells heads apart for a batch at once.
ROW_BY_ROW = [name for name in CACHES if name not in ("dense", "random", "quest", "flexicache")]


@pytest.mark.parametrize("name", ROW_BY_ROW)
def test_a_batch_answers_as_its_requests_alone(name):
    module, limits = endless(), budget(kv=40)
    method = CACHES.build({"type": name, "dense_layers": 0})
    alone = answered(module, method, limits)
    together = answered(module, method, limits, batch_size=3)
    assert [one.ids for one in alone] == [one.ids for one in together]


@pytest.mark.parametrize("most", [1, 2, 17])
def test_tokens_are_counted_to_the_last(most):
    module = endless()
    for batch_size in (1, 3):
        for one in answered(module, Dense(), budget(answer=most), batch_size=batch_size):
            served, p = one.served, len(one.request.ids)
            assert (served.prompt, served.answer, served.steps) == (p, most, most - 1)
            assert served.tokens == p + most - 1 and served.padded >= served.tokens
            pairs = p * p + sum(p + i for i in range(1, most)) if batch_size == 1 else None
            if pairs is not None:
                assert served.flops == pytest.approx(ModelFlops.of(module).forward(Work(p + most - 1, pairs)))


def test_an_answer_that_ends_early_is_counted_to_its_end_and_the_rest_is_padding():
    free = answered(endless(), Dense(), budget())
    module = model()
    module.generation_config.eos_token_id = free[0].ids[3]
    end = free[0].ids.index(module.generation_config.eos_token_id)
    found = answered(module, Dense(), budget(), batch_size=3)
    assert found[0].ids == free[0].ids[:end]
    assert (found[0].served.answer, found[0].served.steps) == (end + 1, end)
    longest = max(one.served.steps for one in found)
    assert all(one.served.padded == max(len(o.request.ids) for o in found) + longest for one in found)


def test_bytes_are_those_of_the_cache():
    module = endless()
    config = module.config
    token = 2 * config.num_hidden_layers * config.num_key_value_heads * config.head_dim * 4
    (one,) = answered(module, Dense(), budget(), rows=ROWS[1:2])
    p, g = len(one.request.ids), 8
    assert one.served.resident_peak == token * (p + g - 1)
    assert one.served.read == sum(token * (p + i) for i in range(1, g))
    (less,) = answered(module, Streaming(), budget(kv=12), rows=ROWS[1:2])
    assert less.served.read == token * 12 * (g - 1)
    assert less.served.attention_flops < one.served.attention_flops


def test_draws_follow_from_the_seed_and_the_place_alone():
    module, limits = endless(), budget()
    engine = Engine(
        module, tokenizer(), ModelFlops.of(module), Dense(), limits, sampling={"do_sample": True, "temperature": 2.0}
    )
    requests = requests_of(ROWS, tokenizer(), limits, 512)
    whole = [one.ids for batch in engine.answer(requests, seed=3) for one in batch]
    rest = [one.ids for batch in engine.answer(requests, seed=3, start=2) for one in batch]
    other = [one.ids for batch in engine.answer(requests, seed=4) for one in batch]
    assert whole[2:] == rest and whole != other


def test_a_cache_of_another_model_is_refused():
    mine, other = endless(), model(hidden=64)
    said = pytest.raises(ApportionError, match="of a model with 2 KV heads of 8, and was given to one with 2 of 16")
    with kv_budget(mine, Dense()) as cache, kv_budget(other, Dense()), said:
        other(input_ids=torch.tensor([[5, 6]]), **{cache_argument(other): cache})


def test_records_add_up():
    a, b = (one.served for one in answered(endless(), Streaming(), budget(kv=12))[:2])
    whole = a + b
    assert whole.tokens == a.tokens + b.tokens and whole.read == a.read + b.read and whole.requests == 2
    assert whole.resident_peak == max(a.resident_peak, b.resident_peak) and whole + Served(requests=0) == whole


class TestPrompts:
    @pytest.mark.parametrize(
        ("text", "fragment"),
        [
            ('{"prompt": "a"}\nnot json\n', "Line 2 of"),
            ('{"promt": "a"}\n', "did you mean 'prompt'"),
            ('{"prompt": "a", "messages": []}\n', "either 'prompt' or 'messages'"),
            ('{"prompt": 3}\n', "must be text"),
            ('["a"]\n', "not a JSON object"),
            ("\n", "holds no prompt"),
        ],
    )
    def test_a_file_that_is_none_is_said_by_line(self, tmp_path, text, fragment):
        file = tmp_path / "p.jsonl"
        file.write_text(text)
        with pytest.raises(ApportionError, match=fragment.replace("(", r"\(")):
            read_prompts(file)

    def test_one_that_is_too_long_is_refused_or_cut_in_the_middle(self):
        with pytest.raises(ApportionError, match="Prompt 2 has"):
            requests_of(ROWS, tokenizer(), budget(prompt=10), 512)
        cut = requests_of(ROWS, tokenizer(), budget(prompt=10, over="middle"), 512)
        whole = requests_of(ROWS, tokenizer(), budget(), 512)
        assert len(cut[1].ids) == 10 and cut[0] == whole[0]
        assert cut[1].ids[:3] == whole[1].ids[:3] and cut[1].ids[-3:] == whole[1].ids[-3:]

    def test_one_longer_than_the_model_is_refused(self):
        with pytest.raises(ApportionError, match=r"Prompt 2 has .* and 12 have room beside 8 of an answer"):
            requests_of(ROWS, tokenizer(), budget(), 20)
        with pytest.raises(ApportionError, match="leaves none for a prompt"):
            requests_of(ROWS, tokenizer(), budget(answer=20), 20)

    def test_turns_take_a_chat_template(self):
        with pytest.raises(ApportionError, match="no chat template"):
            requests_of([{"messages": [{"role": "user", "content": "hi"}]}], tokenizer(), budget(), 512)
