"""Layouts against literal loops: encoder and decoder apart, an instruction before, a text in three."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from studies.evaluation.generation import padded
from torch.nn import functional as F

from apportion.models.tagi.layout import contexts_of, cut_rows, ended, joined, split_rows, stacked
from apportion.models.tagi.splitting import cut_of
from apportion.signals.losses import example_nll
from apportion.tasks.encoded import IGNORED
from tests.models.tagi.models import EXAMPLES, VOCAB, batch_of, example, make_base, make_tagi

PAD, START, END = 0, 1, 2
MANY = [
    *EXAMPLES,
    (1, example(12, 2, 4)),
    (2, example(3, 9, 5, holes=(5, 6, 11))),  # a gap, and an unsupervised end
    (0, example(1, 1, 6)),
]


def literal(examples):
    """What encoder (the end token behind it) and decoder read, and what is to be said, None where nothing is asked."""
    parts = []
    for _, (ids, labels) in examples:
        at = next(k for k, label in enumerate(labels) if label != IGNORED)
        said = [int(label) if label != IGNORED else None for label in labels[at:]]
        parts.append(([*ids[:at].tolist(), END], [START, *ids[at:-1].tolist()], said))
    return parts


class TestSplitting:
    def test_each_row_is_the_literal_one(self):
        batch = batch_of(MANY)
        parts, expected = split_rows(batch, PAD, START, END), literal(MANY)
        assert contexts_of(batch).tolist() == [len(context) - 1 for context, _, _ in expected]
        for row, (context, decoder, _) in enumerate(expected):
            assert parts.input_ids[row, parts.input_mask[row].bool()].tolist() == context
            assert parts.decoder_ids[row, parts.decoder_mask[row].bool()].tolist() == decoder
            # On the left: nothing masked stands before what is read.
            for mask in (parts.input_mask[row], parts.decoder_mask[row]):
                assert mask.diff().le(0).all()
        assert not parts.input_ids[parts.input_mask == 0].any() and not parts.decoder_ids[parts.decoder_mask == 0].any()

    def test_positions_predict_the_targets(self):
        batch = batch_of(MANY)
        parts = split_rows(batch, PAD, START, END)
        width = parts.decoder_ids.shape[1]
        asked = [(row, k, label) for row, (_, _, said) in enumerate(literal(MANY)) for k, label in enumerate(said)]
        found = zip((parts.positions // width).tolist(), (parts.positions % width).tolist(), batch.targets, strict=True)
        assert [(row, column, int(label)) for row, column, label in found] == [a for a in asked if a[2] is not None]

    def test_the_loss_is_the_base_models_own(self):
        base = make_base("t5")
        model, batch = make_tagi("t5", on=base, stirred=False), batch_of(MANY)
        sums, counts = example_nll(model, batch)
        for k, (_, (ids, labels)) in enumerate(MANY):
            at = int((labels != IGNORED).argmax())
            # The base shifts labels to the right by itself; where one is missing it would read a padding token.
            whole = torch.from_numpy(ids[at:])[None]
            decoder = torch.cat([whole.new_full((1, 1), base.config.decoder_start_token_id), whole[:, :-1]], 1)
            asked = torch.from_numpy(labels[at:])[None]
            asking = torch.tensor([[*ids[:at], base.config.eos_token_id]])
            own = base(input_ids=asking, decoder_input_ids=decoder, labels=asked).loss
            assert torch.allclose(sums[k] / counts[k], own, atol=1e-5)
            if (asked != IGNORED).all():
                plain = base(input_ids=asking, labels=asked).loss
                assert torch.equal(plain, own)


class TestEnding:
    @pytest.mark.parametrize("left", [False, True])
    def test_the_end_token_stands_behind_each_text_whatever_side_is_padded(self, left):
        rows = [[5, 6, 7], [8]]
        ids, mask = padded([np.array(row) for row in rows], PAD, left=left)
        longer, its = ended(ids, mask, END, PAD)
        found = [row[kept.bool()].tolist() for row, kept in zip(longer, its, strict=True)]
        assert found == [[*row, END] for row in rows]
        assert not longer[its == 0].any()

    def test_a_t5s_encoder_reads_the_end_token_behind_instruction_input_and_prompt(self):
        """Its own tokenizer puts it there: a text without it is one that pretraining never showed."""
        base, read = make_base("t5"), []
        model = make_tagi("t5", on=base, stage="pretrain", base="all")
        encode = base.get_encoder()
        handle = encode.register_forward_pre_hook(lambda module, args, given: read.append(given), with_kwargs=True)
        model(batch_of([(0, example(9, 4))]))
        model.generate(torch.tensor([[5, 6]]), torch.ones(1, 2).long(), torch.tensor([0]), max_new_tokens=2)
        handle.remove()
        assert len(read) == 4  # instruction and input of the text, instruction and prompt of the answer
        for k, given in enumerate(read):
            last = given["input_ids"][0, given["attention_mask"][0].bool()][-1]
            assert (int(last) == END) == (k != 2), k  # this model's instructions were handed in without one


class TestJoining:
    def test_each_row_is_instruction_and_example(self):
        instructions = [torch.randint(3, VOCAB, (n,)) for n in (5, 9, 3)]
        batch = batch_of(MANY)
        longer = joined(batch, instructions, PAD, None, None)
        for row, (task, (ids, _)) in enumerate(MANY):
            assert longer.input_ids[row, longer.attention_mask[row].bool()].tolist() == [
                *instructions[task].tolist(),
                *ids.tolist(),
            ]
        self.predicts(longer, batch)

    def test_one_start_token_is_enough(self):
        bos, instructions = 1, [torch.tensor([1, 7, 8]), torch.tensor([7, 8])]
        with_start = (np.array([1, 20, 21, 22]), np.array([IGNORED, IGNORED, 21, 22]))
        without = (np.array([30, 31, 32]), np.array([IGNORED, 31, 32]))
        batch = batch_of([(0, with_start), (0, without), (1, with_start)])
        longer = joined(batch, instructions, PAD, bos, None)
        rows = [row[mask.bool()].tolist() for row, mask in zip(longer.input_ids, longer.attention_mask, strict=True)]
        assert rows == [[1, 7, 8, 20, 21, 22], [1, 7, 8, 30, 31, 32], [7, 8, 1, 20, 21, 22]]
        self.predicts(longer, batch)

    def test_an_instructions_own_end_token_does_not_stand_in_the_middle(self):
        instructions = [torch.tensor([7, 8, END]), torch.tensor([7, 8])]
        batch = batch_of([(0, example(2, 2)), (1, example(2, 2))])
        longer = joined(batch, instructions, PAD, None, END)
        assert longer.input_ids[0, longer.attention_mask[0].bool()].tolist()[:2] == [7, 8]
        assert torch.equal(longer.input_ids[0], longer.input_ids[1])
        self.predicts(longer, batch)

    def predicts(self, longer, batch):
        after = longer.input_ids.flatten()[longer.positions + 1]
        assert torch.equal(after, batch.targets) and torch.equal(longer.targets, batch.targets)


TEXTS = [(k, example(context, rest, k)) for k, (context, rest) in enumerate([(2, 5), (9, 1), (30, 12), (4, 4)])]


class TestCutting:
    def test_each_row_is_the_literal_one(self):
        batch = batch_of(TEXTS)
        (ids, mask), rest = cut_rows(batch, PAD)
        for row, (_, (tokens, labels)) in enumerate(TEXTS):
            context = int((labels != IGNORED).argmax())
            cut = cut_of(context)
            assert ids[row, mask[row].bool()].tolist() == tokens[:cut].tolist()
            assert rest.input_ids[row, rest.attention_mask[row].bool()].tolist() == tokens[cut:].tolist()
            assert 0 < cut < context
        assert torch.equal(rest.input_ids.flatten()[rest.positions + 1], batch.targets)
        assert torch.equal(rest.examples, batch.examples)

    def test_the_loss_is_that_of_each_text_cut_by_hand(self):
        model = make_tagi("llama", stage="pretrain", fusion=True, base="all")
        sums, _ = example_nll(model, batch_of(TEXTS))
        for k, (_, (tokens, labels)) in enumerate(TEXTS):
            cut = cut_of(int((labels != IGNORED).argmax()))
            by_hand = make_tagi("llama", fusion=True, base="all")
            by_hand.reader.instruct([torch.from_numpy(tokens[:cut])])
            logits = by_hand(batch_of([(0, (tokens[cut:], labels[cut:]))])).logits
            wanted = torch.from_numpy(labels[labels != IGNORED])
            assert torch.allclose(sums[k], F.cross_entropy(logits, wanted, reduction="sum"), atol=1e-5)

    def test_cuts_are_uniform_over_lengths(self):
        shares = [(cut_of(context) - 0.5) / (context - 1) for context in range(20, 2020)]
        counts = np.histogram(shares, 10, (0, 1))[0]
        # Chi square with nine degrees of freedom is below 33.7 in 9,999 of 10,000 draws.
        assert ((counts - 200) ** 2 / 200).sum() < 33.7
        assert {cut_of(3) for _ in range(9)} <= {1, 2} and cut_of(2) == 1


def test_stacked_pads_on_the_right_even_with_the_paddings_own_id():
    ids, mask = stacked([torch.tensor([5, PAD]), torch.tensor([6, 7, 8])], PAD, "cpu")
    assert ids.tolist() == [[5, PAD, PAD], [6, 7, 8]] and mask.tolist() == [[1, 1, 0], [1, 1, 1]]
