"""FlexiCache: nothing is ever lost, what is moved is what is told, and heads are told apart by how they change."""

import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from apportion._errors import ApportionError
from apportion.caches import Dense, Flexicache, KvShape
from apportion.caches._cache import Held, Side
from apportion.caches._placement import Placement
from apportion.caches.flexicache import overlap
from apportion.decoding.attach import kv_budget
from tests.tiny import ARCHITECTURES, tiny_model

PAGE, PAGES, DIM = 4, 3, 2


class Book:
    """A placement kept by hand: everything there is, and for each row and stable head the pages on the device, in order."""

    def __init__(self, keys, unstable, chosen):
        self.keys, self.unstable = keys, unstable
        self.resident = [[list(map(int, head)) for head in row] for row in chosen]

    def append(self, new):
        if self.keys.shape[2] % PAGE == 0:
            begun = self.keys.shape[2] // PAGE
            for row in self.resident:
                for head in row:
                    victim = head[-2] if head[-1] == 0 else head[-1]
                    head.remove(victim)
                    head.insert(0, begun)
        self.keys = torch.cat([self.keys, new], dim=2)


def begun(rng, rows=2, heads=3, n=18):
    keys = torch.randn(rows, heads, n, DIM, generator=rng)
    unstable = torch.tensor([False, True, False])
    pages = -(-n // PAGE)
    chosen = torch.stack(
        [
            torch.stack(
                [
                    torch.cat([torch.tensor([pages - 1, 0]), 1 + torch.randperm(pages - 2, generator=rng)[:1]])
                    for _ in range(2)
                ]
            )
            for _ in range(rows)
        ]
    )
    return Placement(keys, -keys, unstable, chosen, PAGE), Book(keys, unstable, chosen)


def checked(placement, book):
    """Hold the placement to the book: what is on either side, and that together it is everything."""
    keys, values = placement.whole()
    assert torch.equal(keys, book.keys) and torch.equal(values, -book.keys)
    stable = book.keys[:, ~book.unstable]
    held, held_values, places = placement.resident()
    for row, heads in enumerate(book.resident):
        for head, pages in enumerate(heads):
            assert placement.table[row, head].tolist() == pages
            for slot, page in enumerate(pages):
                part = stable[row, head, page * PAGE : (page + 1) * PAGE]
                at = slice(slot * PAGE, slot * PAGE + len(part))
                assert torch.equal(held[row, head, at], part) and torch.equal(held_values[row, head, at], -part)
                assert places[row, head, slot * PAGE].item() == page * PAGE
    full = book.keys.shape[2] // PAGE * PAGE
    on_host = placement.host_rows[0].view()
    assert on_host.shape[2] == full and torch.equal(on_host, stable[:, :, :full])
    assert placement.host_bytes == 2 * stable[:, :, :full].nbytes


@settings(max_examples=500, deadline=None)
@given(st.integers(0, 2**31), st.lists(st.sampled_from(["append", "append", "append", "rank", "take"]), max_size=25))
def test_nothing_is_lost_whatever_happens(seed, steps):
    rng = torch.Generator().manual_seed(seed)
    placement, book = begun(rng)
    checked(placement, book)
    for step in steps:
        rows = book.keys.shape[0]
        if step == "append":
            new = torch.randn(rows, 3, 1, DIM, generator=rng)
            placement.moved = 0
            placement.append(new, -new)
            book.append(new)
            flushed = book.keys.shape[2] % PAGE == 0
            assert placement.moved == flushed * 2 * rows * 2 * PAGE * DIM * 4
        elif step == "rank":
            total = -(-book.keys.shape[2] // PAGE)
            order = torch.stack(
                [
                    torch.stack(
                        [
                            torch.cat([torch.tensor([total - 1, 0]), 1 + torch.randperm(total - 2, generator=rng)[:1]])
                            for _ in range(2)
                        ]
                    )
                    for _ in range(rows)
                ]
            )
            promoted = sum(
                len(set(order[row, head].tolist()) - set(book.resident[row][head]))
                for row in range(rows)
                for head in range(2)
            )
            placement.moved = 0
            placement.rank(order)
            book.resident = [[list(map(int, head)) for head in row] for row in order]
            assert placement.moved == promoted * 2 * PAGE * DIM * 4
        else:
            index = torch.randint(0, rows, (2,), generator=rng)
            placement.take(index)
            book.keys = book.keys[index]
            book.resident = [[list(head) for head in book.resident[i]] for i in index.tolist()]
        checked(placement, book)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("beams", [1, 3])
def test_a_budget_of_everything_is_dense_to_the_bit(architecture, beams):
    model = tiny_model(architecture).eval()
    ids = torch.randint(3, 60, (2, 20), generator=torch.Generator().manual_seed(0))
    asked = {"input_ids": ids, "max_new_tokens": 20, "do_sample": False, "eos_token_id": None, "pad_token_id": 0}
    asked |= {
        "num_beams": beams,
        "attention_mask": torch.ones_like(ids),
        "output_logits": True,
        "return_dict_in_generate": True,
    }
    found = []
    for method in (Flexicache(page=4), Flexicache(page=4, unstable=0.0), None):
        with kv_budget(model, method or Dense(), 40) as cache:
            found.append(model.generate(**asked, past_key_values=cache))
    for other in found[:2]:
        assert torch.equal(other.sequences, found[2].sequences)
        assert all(torch.equal(a, b) for a, b in zip(other.logits, found[2].logits, strict=True))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_ranked_every_step_it_reads_what_quest_reads_with_the_first_page(architecture):
    """All heads unstable or all stable: the same pages, the same logits."""
    model = tiny_model(architecture).eval()
    ids = torch.randint(3, 60, (2, 60), generator=torch.Generator().manual_seed(1))
    mask = torch.ones_like(ids)
    mask[0, :9] = 0
    asked = {"input_ids": ids, "attention_mask": mask, "max_new_tokens": 24, "do_sample": False, "eos_token_id": None}
    asked |= {"pad_token_id": 0, "output_logits": True, "return_dict_in_generate": True}
    found, hosts = [], []
    for unstable in (0.0, 0.5, 1.0):
        with kv_budget(model, Flexicache(page=4, interval=1, unstable=unstable), 24) as cache:
            found.append(model.generate(**asked, past_key_values=cache))
            hosts.append(cache.host)
    assert hosts[0] > hosts[1] > hosts[2] == 0
    for other in found[1:]:
        assert torch.equal(other.sequences, found[0].sequences)
        assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(other.logits, found[0].logits, strict=True))


def test_stable_heads_are_ranked_at_multiples_of_the_interval_alone(monkeypatch):
    model = tiny_model("llama").eval()
    ids = torch.randint(3, 60, (1, 50), generator=torch.Generator().manual_seed(2))
    ranked, real = [], Placement.rank
    monkeypatch.setattr(Placement, "rank", lambda self, order: ranked.append(self.length) or real(self, order))
    with kv_budget(model, Flexicache(page=4, interval=5, unstable=0.5), 16) as cache:
        model.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=22,
            do_sample=False,
            eos_token_id=None,
            pad_token_id=0,
            past_key_values=cache,
        )
        layers = len(cache.budgeted)
    # Placed at the first decode step, of 51 tokens; then every fifth one.
    assert (
        ranked == [length for length in (56, 61, 66, 71) for _ in range(layers)][: len(ranked)]
        and len(ranked) == 4 * layers
    )


def test_it_goes_back_and_on_again():
    """A crop brings everything together; what follows is as if the tokens had never been there."""
    model = tiny_model("llama").eval()
    ids = torch.randint(3, 60, (1, 50), generator=torch.Generator().manual_seed(3))
    with kv_budget(model, Flexicache(page=4, interval=3, unstable=0.5), 16) as cache, torch.no_grad():
        model(input_ids=ids, past_key_values=cache)
        first = model(input_ids=ids[:, :1], past_key_values=cache).logits
        for token in (5, 6, 7):
            model(input_ids=torch.tensor([[token]]), past_key_values=cache)
        keys = cache.budgeted[0].placement.whole()[0][:, :, :50]
        cache.crop(-4)
        assert cache.get_seq_length() == 50 and torch.equal(cache.budgeted[0].keys, keys)
        again = model(input_ids=ids[:, :1], past_key_values=cache).logits
    assert torch.allclose(first, again, atol=1e-5)


def test_overlap_of_random_sets_is_zero_on_average_and_of_the_same_set_what_is_left():
    rng = torch.Generator().manual_seed(0)
    k, pages = 8, 40
    found = torch.tensor(
        [float(overlap(*(torch.randperm(pages, generator=rng)[:k] for _ in range(2)), pages)) for _ in range(2000)]
    )
    assert abs(float(found.mean())) < 3 * float(found.std()) / 2000**0.5
    same = torch.randperm(pages, generator=rng)[:k]
    assert float(overlap(same, same.flip(0), pages)) == pytest.approx(1 - k / pages)


def planted(rng, heads=16, n=256, page=16):
    """Keys in which half of the heads always want the same pages, and the other half other ones at each query."""
    d = 16
    keys = 0.1 * torch.randn(1, heads, n, d, generator=rng)
    queries = torch.zeros(1, heads, 24, d)
    pages = n // page
    for head in range(heads):
        for step in range(24):
            direction = 0 if head % 2 == 0 else step % 4
            queries[0, head, step, direction] = 1.0
        for page_number in range(pages):
            keys[0, head, page_number * page, page_number % 4] += 5.0
    return keys, queries


def test_heads_are_told_apart_by_how_much_their_pages_change():
    keys, queries = planted(torch.Generator().manual_seed(4))
    method = Flexicache(page=16, unstable=0.5)
    side: Side = {}
    method.extend(side, keys, 0)
    placement = method.place(Held(keys, keys, None, side, 0, 0.25), queries, 6 * 16)
    assert placement.unstable.tolist() == [head % 2 == 1 for head in range(16)]


@pytest.mark.parametrize(("n", "pages"), [(20_000, 64), (5_000, 64), (4_096, 16)])
def test_what_stays_on_the_device_is_the_papers_share(n, pages):
    """f + (1 - f) K / N of keys and values, and 1 / page of them for the bounds: from the tensors' own bytes."""
    rng, heads, d = torch.Generator().manual_seed(5), 8, 16
    keys = torch.randn(1, heads, n, d, generator=rng)
    method, side = Flexicache(unstable=0.25), {}
    method.extend(side, keys, 0)
    placement = method.place(
        Held(keys, keys, None, side, 0, 0.25), torch.randn(1, heads, 4, d, generator=rng), pages * 16
    )
    whole = 2 * keys.nbytes
    bounds = sum(part.nbytes for part in side.values())
    total = -(-n // 16)
    assert placement.nbytes / whole == pytest.approx(0.25 + 0.75 * pages / total, rel=0.01)
    assert bounds / whole == pytest.approx(1 / 16, rel=0.01)


def test_a_profile_says_which_heads_are_unstable(tmp_path):
    heads = [{"layer": layer, "head": head, "stability": layer + head / 10} for layer in range(2) for head in range(4)]
    file = tmp_path / "heads.json"
    file.write_text(json.dumps({"schema": 1, "heads": heads}))
    method = Flexicache(page=4, unstable=0.5, profile=str(file))
    keys, side = torch.randn(1, 4, 40, 8), {}
    method.extend(side, keys, 0)
    for layer, expected in ((0, [True] * 4), (1, [False] * 4)):
        placement = method.place(Held(keys, keys, None, side, layer, 0.3), torch.randn(1, 4, 2, 8), 16)
        assert placement.unstable.tolist() == expected
    method.check(KvShape(2, 8, 4, 8, 4), 16)
    with pytest.raises(ApportionError, match="of a model with 8 heads, and this one has 12"):
        method.check(KvShape(3, 8, 4, 8, 4), 16)
    with pytest.raises(ApportionError, match="is no profile"):
        Flexicache(profile=str(tmp_path / "nowhere.json")).check(KvShape(2, 8, 4, 8, 4), 64)


def test_a_budget_below_two_pages_is_refused():
    with pytest.raises(ApportionError, match="a budget of 31 tokens is too small"):
        Flexicache().check(KvShape(2, 8, 4, 8, 4), 31)
