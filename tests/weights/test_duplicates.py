"""Duplicates against every pair looked at, for any order of the pool, read text by text, and in a run."""

from __future__ import annotations

import builtins
import json
import weakref

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apportion import weights as family
from apportion._errors import ApportionError
from apportion.signals import Seen
from apportion.weights.duplicates import clusters, signatures
from tests.references.duplicates import grouped, jaccard, literal
from tests.training.runs import history, ledger, run, weights


def weigh(pool, **set_to):
    return family.Duplicates(**set_to).weigh(Seen(texts=[np.array(text) for text in pool])).tolist()


def edited(text, places, generator):
    """The text with other tokens at some places."""
    text = text.copy()
    text[list(places)] = generator.integers(1000, 2000, len(places))
    return text


@st.composite
def pools(draw):
    """Some texts, copies and near-copies of them, mixed; no pair is between 0.1 and 0.9 alike, so that none is in doubt."""
    generator = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    pool = []
    for _ in range(draw(st.integers(1, 6))):
        base = generator.integers(0, 1000, draw(st.integers(120, 200)))
        copies = draw(st.lists(st.sampled_from([[], [0], [-1]]), max_size=4))
        pool += [base, *(edited(base, places, generator) for places in copies)]
    return [pool[i] for i in generator.permutation(len(pool))]


@given(pools())
@settings(max_examples=25, deadline=None)
def test_it_agrees_with_looking_at_every_pair(pool):
    assert weigh(pool) == pytest.approx(literal([text.tolist() for text in pool], 5, 0.8))


short = st.lists(st.integers(0, 3), min_size=1, max_size=12)


@given(st.lists(short, min_size=1, max_size=12), st.randoms(use_true_random=False))
@settings(max_examples=40, deadline=None)
def test_the_pools_order_does_not_matter_even_where_similarity_is_in_doubt(pool, random):
    order = random.sample(range(len(pool)), len(pool))
    whole = weigh(pool, shingle=2, threshold=0.5, permutations=32)
    assert weigh([pool[i] for i in order], shingle=2, threshold=0.5, permutations=32) == [whole[i] for i in order]
    assert sum(whole) == pytest.approx(round(sum(whole)))  # one for each cluster
    same = {tuple(text): w for text, w in zip(pool, whole, strict=True)}
    assert all(same[tuple(text)] == w for text, w in zip(pool, whole, strict=True))


@given(
    st.lists(st.lists(st.integers(0, 1), min_size=4, max_size=4), min_size=1, max_size=10).flatmap(
        lambda made: st.tuples(
            st.just(made), st.lists(st.sets(st.integers(0, len(made) - 1), min_size=1).map(sorted), max_size=6)
        )
    ),
    st.sampled_from([0.5, 0.75, 1.0]),
)
@settings(max_examples=200, deadline=None)
def test_clusters_are_all_that_chains_of_agreeing_candidates_reach(drawn, threshold):
    made, buckets = np.array(drawn[0]), drawn[1]

    def alike(i, j):
        return (made[i] == made[j]).mean() >= threshold and any(i in bucket and j in bucket for bucket in buckets)

    found = clusters(made, buckets, threshold)
    assert [set(np.flatnonzero(found == number)) for number in found] == grouped(len(made), alike)


def test_signatures_agree_as_often_as_sets_do_and_bands_find_what_is_well_alike():
    generator = np.random.default_rng(0)
    firsts = [generator.integers(0, 1000, 300) for _ in range(120)]
    pool = firsts + [edited(text, range(3, 3 + n % 60), generator) for n, text in enumerate(firsts)]
    made, buckets = signatures(pool, 5, 0.8, 128)
    exact = np.array([jaccard(pool[i].tolist(), pool[i + 120].tolist(), 5) for i in range(120)])
    estimated = (made[:120] == made[120:]).mean(1)
    assert exact.min() < 0.7 < 0.95 < exact.max()
    assert abs(estimated - exact).max() < 4 * np.sqrt(0.25 / 128)
    assert abs((estimated - exact).mean()) < 4 * np.sqrt(0.25 / 128 / 120)
    together = {(i, j) for bucket in buckets for i in bucket for j in bucket}
    found = np.array([(i, i + 120) in together for i in range(120)])
    assert found[exact > 0.87].all() and found[exact > 0.8].mean() > 0.9


def test_a_text_shorter_than_a_run_is_one_run():
    assert weigh([[1, 2], [1, 2], [1, 3], [1, 2, 3]], shingle=4) == [0.5, 0.5, 1.0, 1.0]


def test_near_duplicates_of_near_duplicates_are_of_one_cluster():
    chain = [np.arange(start, start + 200) for start in (0, 15, 30)]
    assert jaccard(chain[0].tolist(), chain[2].tolist(), 5) < 0.75
    assert weigh(chain) == pytest.approx([1 / 3] * 3)
    assert weigh([chain[0], chain[2]]) == [1.0, 1.0]


def test_a_higher_threshold_and_longer_runs_find_less():
    base = np.random.default_rng(1).integers(0, 1000, 200)
    pool = [base, edited(base, [60, 120], np.random.default_rng(2))]
    assert weigh(pool) == [0.5, 0.5]
    assert weigh(pool, threshold=0.97) == weigh(pool, shingle=30) == [1.0, 1.0]


class Reading:
    """Texts that come into being as they are read, and a count of those that are still held."""

    held = most = 0

    def __len__(self):
        return 50

    def __iter__(self):
        for number in range(50):
            text = np.random.default_rng(number // 2).integers(0, 1000, 60)
            self.held += 1
            self.most = max(self.most, self.held)
            weakref.finalize(text, self.let_go)
            yield text

    def let_go(self):
        self.held -= 1


def test_texts_are_held_one_at_a_time():
    reading = Reading()
    assert family.Duplicates().weigh(Seen(texts=reading)).tolist() == [0.5] * 50
    assert reading.most <= 3


def test_what_cannot_be_done_is_said(monkeypatch):
    with pytest.raises(
        ApportionError, match=r"'weights\.permutations' is 4, too few for a 'weights\.threshold' of 0\.9"
    ):
        weigh([[1, 2, 3]], permutations=4, threshold=0.9)
    real = builtins.__import__

    def missing(name, *args, **kwargs):
        if name == "datasketch":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(ApportionError, match=r"pip install 'apportion\[minhash\]'"):
        weigh([[1, 2, 3]])


def test_a_run_weighs_a_task_and_its_copy_by_half_and_charges_no_pass(tmp_path):
    """Half the weight at twice the learning rate is plain SGD, bit for bit."""
    generator = np.random.default_rng(4)
    rows = [{"prompt": "".join(generator.choice(list("abcdefgh"), 40)), "completion": "ok"} for _ in range(60)]
    for name in ("one", "copy"):
        (tmp_path / f"{name}.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    paths = {name: str(tmp_path / f"{name}.jsonl") for name in ("one", "copy")}
    common = (f"tasks={json.dumps({'path': paths, 'max_length': 96})}", "training.optim=sgd", "budget=300")
    free = run(tmp_path / "free", *common, "training.max_grad_norm=0", "training.learning_rate=0.1")
    half = ("weights=duplicates", "training.max_grad_norm=0", "training.learning_rate=0.2")
    weighed = run(tmp_path / "weighed", *common, *half)
    assert weights(weighed) == weights(free)
    assert ledger(weighed)["accounts"] == ledger(free)["accounts"]
    assert all(record["weights"]["mean"] == 0.5 for record in history(weighed)[1:-1])
