"""Metrics against values worked out by hand, against the literal definition and against rouge-score itself."""

import random
import sys

import pytest
from rouge_score.rouge_scorer import RougeScorer
from studies.evaluation import metrics
from studies.evaluation.metrics import exact_match, means, rouge_l

from apportion._errors import ApportionError
from tests.references import tagi as literal


class TestRougeL:
    @pytest.mark.parametrize(
        ("prediction", "reference", "expected"),
        [
            ("the cat sat", "the cat sat", 1.0),
            # LCS "police the gunman" has 3 of 4 and 3 of 4 words.
            ("police kill the gunman", "police ended the gunman", 0.75),
            # LCS 2 words: precision 2/2, recall 2/5, F1 4/7.
            ("red green", "red blue green white black", 4 / 7),
            # In order only: LCS of a reversal is 1 of 3.
            ("three two one", "one two three", 1 / 3),
            ("Positive.", "positive", 1.0),
            # The stemmer makes one of both.
            ("runs", "running", 1.0),
            ("yes", "no", 0.0),
            ("", "no", 0.0),
        ],
    )
    def test_by_hand(self, prediction, reference, expected):
        assert rouge_l(prediction, [reference]) == pytest.approx(expected)

    def test_the_best_reference_counts(self):
        assert rouge_l("red green", ["blue", "red", "red green", "green"]) == 1.0
        assert rouge_l("red green", ["blue", "red"]) == pytest.approx(2 / 3)

    def test_is_the_literal_one_and_rouge_score_s_own(self):
        rng, own = random.Random(0), RougeScorer(["rougeL"], use_stemmer=True)
        words = ["red", "fox", "dog", "sun", "map"]
        for _ in range(60):
            said, one, other = (" ".join(rng.choices(words, k=rng.randint(1, 7))) for _ in range(3))
            score = rouge_l(said, [one, other])
            assert score == pytest.approx(literal.rouge_l(said, [one, other]))
            assert score == max(own.score(reference, said)["rougeL"].fmeasure for reference in (one, other))

    def test_without_rouge_score_it_says_what_to_install(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "rouge_score.rouge_scorer", None)
        metrics._scorer.cache_clear()
        with pytest.raises(ApportionError, match="pip install"):
            rouge_l("a", ["a"])


class TestExactMatch:
    @pytest.mark.parametrize(
        ("prediction", "reference", "expected"),
        [
            ("Yes", "yes", 1.0),
            (" New  York,\n", "new york", 1.0),
            ("it's", "its", 1.0),
            ("the cat", "cat", 0.0),
            ("new york", "newyork", 0.0),
            ("", "no", 0.0),
            ("...", "!", 1.0),
        ],
    )
    def test_by_hand(self, prediction, reference, expected):
        assert exact_match(prediction, [reference]) == expected

    def test_any_reference_will_do(self):
        assert exact_match("b", ["a", "B.", "c"]) == 1.0
        assert exact_match("d", ["a", "B.", "c"]) == 0.0


@pytest.mark.parametrize("metric", [rouge_l, exact_match])
class TestReferences:
    def test_none_are_refused(self, metric):
        with pytest.raises(ApportionError, match="no references"):
            metric("a", [])

    def test_one_text_is_not_a_list_of_them(self, metric):
        with pytest.raises(ApportionError, match="list of texts"):
            metric("a", "abc")


class TestMeans:
    def test_by_hand(self):
        result = means({"long": [1.0, 0.0, 0.0, 1.0], "short": [1.0]})
        assert result.tasks == {"long": 0.5, "short": 1.0}
        assert result.macro == 0.75
        assert result.mean == pytest.approx(0.6)

    def test_the_tasks_keep_their_order(self):
        assert list(means({"b": [0.0], "a": [1.0]}).tasks) == ["b", "a"]

    def test_nothing_has_no_mean(self):
        with pytest.raises(ApportionError, match="No task"):
            means({})
        with pytest.raises(ApportionError, match="task 'b'"):
            means({"a": [1.0], "b": []})
