"""Every method of reading a cache, inside transformers' own generation: what holds for each of them."""

from functools import lru_cache

import pytest
import torch
from transformers.cache_utils import DynamicLayer

from apportion.caches import CACHES, Dense, KvShape
from apportion.decoding.attach import kv_budget
from apportion.decoding.attend import attend, packed
from apportion.decoding.store import Layer
from apportion.decoding.watch import Watch
from tests.caches.test_plain import METHODS, method_of
from tests.tiny import ARCHITECTURES, tiny_model

NEW = 32
# What keeps some of its pages elsewhere has accounts of its own: tests/caches/test_flexicache.py.
HELD = [name for name in METHODS if not method_of(name).places]
KINDS = ("plain", "padding", "beams", "heads alike", "one head", "chunks")


@lru_cache(maxsize=8)
def model_of(architecture, kind):
    groups = {"heads alike": {"num_key_value_heads": 4}, "one head": {"num_key_value_heads": 1}}.get(kind, {})
    return tiny_model(architecture, layers=3, max_position_embeddings=256, **groups).eval()


def inputs_of(kind, length=40):
    ids = torch.randint(3, 61, (2, length), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(ids)
    if kind == "padding":
        mask[0, : length // 3] = 0
        ids = ids * mask
    return {"input_ids": ids, "attention_mask": mask}


def generated(model, kind, cache=None, new=NEW):
    """Greedy tokens with the scores they were taken by; beams where the kind says so."""
    extra = {} if cache is None else {"past_key_values": cache}
    inputs = inputs_of(kind)
    if kind == "chunks" and cache is not None:
        with torch.no_grad():
            model(input_ids=inputs["input_ids"][:, :17], past_key_values=cache)
    return model.generate(
        **inputs,
        **extra,
        do_sample=False,
        num_beams=3 if kind == "beams" else 1,
        max_new_tokens=new,
        min_new_tokens=new,
        output_logits=True,
        return_dict_in_generate=True,
    )


@lru_cache(maxsize=32)
def plainly(architecture, kind):
    return generated(model_of(architecture, kind), kind)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("name", CACHES)
def test_a_budget_of_all_is_dense(name, architecture, kind):
    model, plain = model_of(architecture, kind), plainly(architecture, kind)
    everything = "100%" if name in HELD else f"{model.config.max_position_embeddings} tokens"
    with kv_budget(model, method_of(name), everything) as cache:
        ours = generated(model, kind, cache)
    assert torch.equal(ours.sequences, plain.sequences)
    for mine, theirs in zip(ours.logits, plain.logits, strict=True):
        assert torch.allclose(mine, theirs, atol=1e-5)


def test_dense_gives_the_bits_of_the_same_attention_behind_transformers_cache():
    generator = torch.Generator().manual_seed(0)
    prompt = [torch.randn(2, heads, 50, 16, generator=generator) for heads in (4, 2, 2)]
    layer, theirs = Layer(Dense(), 0, KvShape(1, 4, 2, 16, 4), lambda seen: seen, Watch()), DynamicLayer()
    layer.ask(prompt[0])
    for cache in (layer, theirs):
        cache.update(*prompt[1:])
    for _ in range(70):
        query, key, value = (torch.randn(2, heads, 1, 16, generator=generator) for heads in (4, 2, 2))
        ours = attend(torch.nn.Module(), query, *layer.update(key, value), None, scaling=0.25)[0]
        assert torch.equal(ours, packed(query, *theirs.update(key, value), None, 0.25))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("name", HELD)
def test_a_budget_is_kept_and_told(name, architecture, kind):
    """What was read is what the budget lets be read, by the shapes of what was taken, and by the method's own account."""
    model, method = model_of(architecture, kind), method_of(name)
    with kv_budget(model, method, 12) as cache:
        generated(model, kind, cache, new=10)
    watch = cache.watch
    assert watch.most <= 12
    layers = cache.budgeted
    assert len(layers) == cache.shape.layers
    for layer in layers:
        rows = layer.keys.shape[0]
        assert layer.seen == 49
        if method.evicts:
            assert layer.keys.shape[2] <= 12 and layer.nbytes <= rows * 12 * cache.shape.token_bytes
        if method.reads_less and layer.side:
            assert rows * method.reads(cache.shape, layer.seen, 12) == layer.side_bytes
    if kind != "beams":
        steps, rows = 9, 2
        read = 0
        for step in range(steps):
            held = 41 + step
            attended = 12 if method.reads_less else held
            side = 0 if method.evicts or not method.reads_less else method.reads(cache.shape, held, 12)
            read += rows * len(layers) * (attended * cache.shape.token_bytes + side)
        # Pages that are not full are read as far as they are.
        assert watch.read <= read and (name == "quest" or watch.read == read)


@pytest.mark.parametrize("name", [name for name in HELD if name not in ("snapkv", "streaming")])
def test_side_data_follows_the_rows_and_the_end(name):
    """After tokens were taken away, and rows put in another order, repeated or left out, it is that of the keys."""
    model, method = model_of("llama", "plain"), method_of(name)
    with kv_budget(model, method, 12) as cache:
        generated(model, "plain", cache, new=10)

    def check():
        for layer in cache.budgeted:
            fresh = method.rebuilt(layer.side, layer.keys)
            assert set(fresh) == set(layer.side)
            for key, part in layer.side.items():
                if hasattr(part, "view") and not isinstance(part, torch.Tensor):
                    assert torch.equal(part.view(), fresh[key].view()), key
                    assert part.length == fresh[key].length

    keys = cache.budgeted[0].keys.clone()
    check()
    cache.crop(-3)
    assert torch.equal(cache.budgeted[0].keys, keys[:, :, :-3])
    check()
    cache.reorder_cache(torch.tensor([1, 0]))
    assert torch.equal(cache.budgeted[0].keys, keys[:, :, :-3].flip(0))
    check()
    cache.batch_repeat_interleave(3)
    assert cache.budgeted[0].keys.shape[0] == 6
    check()
    cache.batch_select_indices(torch.tensor([0, 5]))
    assert torch.equal(cache.budgeted[0].keys, keys[:, :, :-3].flip(0))
    check()
    # It goes on from there: a step reads within the budget.
    cache.watch.taken()
    with kv_budget(model, method, 12), torch.no_grad():
        model(torch.tensor([[5], [6]]), past_key_values=cache)
    assert cache.watch.most <= 12


@pytest.mark.parametrize("name", ["snapkv", "streaming"])
def test_who_has_forgotten_cannot_go_back(name):
    model = model_of("llama", "plain")
    with kv_budget(model, method_of(name), 12) as cache:
        generated(model, "plain", cache, new=4)
    with pytest.raises(ValueError, match=f"'{name}' has forgotten tokens"):
        cache.crop(-3)


@pytest.mark.parametrize("name", HELD)
def test_a_step_with_gradients_on_is_the_same_step(name):
    """Whoever forgets to switch them off gets the same numbers, and no error from inside a method."""
    model, ids, found = model_of("llama", "plain"), inputs_of("plain")["input_ids"], []
    for gradients in (False, True):
        with kv_budget(model, method_of(name), 12) as cache, torch.set_grad_enabled(gradients):
            model(ids, past_key_values=cache)
            found.append(model(ids[:, :1], past_key_values=cache).logits.detach())
    assert torch.allclose(*found, atol=1e-6)


@pytest.mark.parametrize("name", HELD)
def test_a_second_identical_request_gives_equal_bits(name):
    model, found = model_of("qwen3", "padding"), []
    for _ in range(2):
        with kv_budget(model, method_of(name), 12) as cache:
            found.append(generated(model, "padding", cache, new=8).logits)
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


# Random draws are for a whole batch.
@pytest.mark.parametrize("name", [name for name in HELD if name != "random"])
def test_the_rows_of_a_batch_are_served_as_if_alone(name):
    model = model_of("llama", "plain")
    ids = inputs_of("plain")["input_ids"]
    found = []
    for rows in (ids, ids[1:]):
        with kv_budget(model, method_of(name), 12) as cache:
            found.append(model.generate(rows, do_sample=False, max_new_tokens=12, past_key_values=cache)[-1])
    assert torch.equal(*found)


@pytest.mark.parametrize("name", ["quest", "adamas"])
def test_dense_layers_are_read_whole_and_counted(name):
    model = model_of("llama", "plain")
    with kv_budget(model, CACHES.get(name)(), 12) as cache:
        generated(model, "plain", cache, new=2)
    # Of three layers two are dense: 41 tokens, two rows, and the budget in the third.
    side = cache.method.reads(cache.shape, 41, 12)
    read = 2 * ((2 * 41 + cache.watch.most) * cache.shape.token_bytes + side)
    assert cache.watch.read == read and cache.watch.attended == 2 * (82 + cache.watch.most)
    assert not cache.budgeted[0].side and cache.budgeted[2].side


@pytest.mark.parametrize("name", HELD)
def test_a_method_is_written_and_read_again(name):
    method = method_of(name)
    assert CACHES.build(CACHES.block(method, "cache")) == method
