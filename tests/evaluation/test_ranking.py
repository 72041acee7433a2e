"""Rank classification by mean and by sum: by hand, and with a model's own likelihoods."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from apportion._errors import ApportionError
from apportion.evaluation.ranking import Accuracy, Choice, rank, rank_classification
from apportion.signals.losses import example_nll
from apportion.tasks.batches import collate
from tests.tiny import tiny_model


class TestRank:
    def test_mean_and_sum_may_differ(self):
        # 6 over 4 tokens is 1.5 a token, 2 over 1 token is 2.
        assert rank([6.0, 2.0], [4, 1]) == Choice(normalised=0, summed=1)

    def test_options_of_one_length_rank_alike(self):
        sums = np.random.default_rng(0).random((50, 4))
        for row in sums:
            choice = rank(row, [3, 3, 3, 3])
            assert choice.normalised == choice.summed == row.argmin()

    def test_the_first_of_equals(self):
        assert rank([2.0, 2.0, 3.0], [1, 1, 1]) == Choice(0, 0)

    def test_an_impossible_option_loses(self):
        assert rank([np.inf, 9.0], [1, 1]) == Choice(1, 1)

    def test_tensors_will_do(self):
        assert rank(torch.tensor([6.0, 2.0]), torch.tensor([4, 1])) == Choice(0, 1)

    @pytest.mark.parametrize(
        ("sums", "lengths", "said"),
        [
            ([], [], "for each option"),
            ([1.0, 2.0], [1], "for each option"),
            ([1.0, 2.0], [1, 0], "Option 1 has no tokens"),
            ([1.0, float("nan")], [1, 1], "option 1 is not a number"),
        ],
    )
    def test_bad_input_is_refused(self, sums, lengths, said):
        with pytest.raises(ApportionError, match=said):
            rank(sums, lengths)


class TestClassification:
    QUESTIONS = ([(6.0, 4), (2.0, 1)], [(1.0, 1), (5.0, 1), (9.0, 10)], [(3.0, 1), (1.0, 1)])

    @staticmethod
    def nll(options):
        return [sum_ for sum_, _ in options], [length for _, length in options]

    def test_by_hand(self):
        # By mean 0, 2, 1; by sum 1, 0, 1.
        assert rank_classification(self.nll, self.QUESTIONS, [0, 2, 1]) == Accuracy(1.0, pytest.approx(1 / 3))
        assert rank_classification(self.nll, self.QUESTIONS, [1, 0, 0]) == Accuracy(0.0, pytest.approx(2 / 3))

    def test_with_a_model_it_is_one_option_at_a_time(self):
        model = tiny_model("llama").eval()
        rng = np.random.default_rng(0)
        questions = []
        for _ in range(6):
            prompt, options = rng.integers(3, 61, 5), [rng.integers(3, 61, n) for n in (1, 3, 6)]
            marks = np.full(5, -100)
            questions.append([(np.concatenate([prompt, o]), np.concatenate([marks, o])) for o in options])

        def nll(options):
            return example_nll(model, collate(options, [0] * len(options), 0))

        expected = {"normalised": [], "summed": []}
        with torch.no_grad():
            for options in questions:
                rows = []
                for ids, _ in options:
                    tokens = torch.from_numpy(ids)
                    rows.append(F.cross_entropy(model(tokens[None]).logits[0, 4:-1], tokens[5:], reduction="none"))
                expected["normalised"].append(int(np.argmin([float(row.mean()) for row in rows])))
                expected["summed"].append(int(np.argmin([float(row.sum()) for row in rows])))
            assert expected["normalised"] != expected["summed"]
            for name, right in expected.items():
                assert getattr(rank_classification(nll, questions, right), name) == 1.0

    def test_bad_input_is_refused(self):
        with pytest.raises(ApportionError, match="answer to each question"):
            rank_classification(self.nll, self.QUESTIONS, [0, 1])
        with pytest.raises(ApportionError, match="answer to each question"):
            rank_classification(self.nll, [], [])
        with pytest.raises(ApportionError, match="question 1 is option 3, of 3"):
            rank_classification(self.nll, self.QUESTIONS, [0, 3, 0])
