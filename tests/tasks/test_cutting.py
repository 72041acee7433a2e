"""Thinking that is cut in training: what is dropped, what is supervised, and what is left alone."""

import numpy as np
import pytest

from apportion._errors import ApportionError
from apportion.tasks import EncodedCollection, EncodedSplit, EncodedTask, encode, load_tasks, train_tokenizer
from apportion.tasks.cutting import cut_thinking
from apportion.tasks.encoded import IGNORED

OPEN, CLOSE = (91, 92), (93,)


def split(*examples, keys=None):
    """A split of examples given as tokens, below zero where supervised."""
    pairs = []
    for signed in examples:
        tokens = np.array([~t if t < 0 else t for t in signed])
        pairs.append((tokens, np.where(np.array(signed) < 0, tokens, IGNORED)))
    return EncodedSplit.from_arrays([f"e{i}" for i in range(len(pairs))], pairs, keys)


def collection(*examples, keys=None, targets=()):
    held = split([1, *OPEN, ~2, ~3, ~93, ~4], [5, ~6])
    return EncodedCollection([EncodedTask("t", split(*examples, keys=keys), held, held)], ["old."], "print", targets)


def signed(part, i):
    tokens, labels = part.example(i)
    return [int(~t) if labelled else int(t) for t, labelled in zip(tokens, labels != IGNORED, strict=True)]


def every(part):
    return [signed(part, i) for i in range(len(part))]


def supervised(*tokens):
    return [~t for t in tokens]


def literal(before, thought, after, kept):
    """A cut example by hand: the tags, what is kept of the thought, the close tag as context, and the answer."""
    return [*before, *thought[:kept], *CLOSE, *after]


BEFORE, AFTER = [1, 2, *supervised(*OPEN)], supervised(7, 8)
THOUGHT = supervised(10, 11, 12, 13, 14)
WHOLE = [*BEFORE, *THOUGHT, *supervised(*CLOSE), *AFTER]


def test_all_places_are_cut_at_alike_and_what_is_left_is_as_by_hand():
    tasks = collection(*[WHOLE] * 1000)
    cut = cut_thinking(tasks, OPEN, CLOSE, 1.0, seed=0).tasks[0].train
    possible = [literal(BEFORE, THOUGHT, AFTER, kept) for kept in range(len(THOUGHT))]
    counts = [every(cut).count(example) for example in possible]
    assert sum(counts) == 1000 and all(150 < n < 250 for n in counts)


def test_a_share_is_cut_and_a_larger_share_cuts_the_same_ones_too():
    tasks = collection(*[WHOLE] * 1000)
    none, some, more = (every(cut_thinking(tasks, OPEN, CLOSE, share, 0).tasks[0].train) for share in (0.0, 0.3, 0.6))
    assert none == [WHOLE] * 1000
    assert 250 < sum(example != WHOLE for example in some) < 350
    assert 550 < sum(example != WHOLE for example in more) < 650
    assert all(a in (WHOLE, b) for a, b in zip(some, more, strict=True))


def test_it_follows_from_the_seed_and_the_id_alone():
    tasks = collection(*[WHOLE] * 50)
    one, again, other = (every(cut_thinking(tasks, OPEN, CLOSE, 1.0, seed).tasks[0].train) for seed in (0, 0, 1))
    assert one == again != other
    fewer = every(cut_thinking(collection(*[WHOLE] * 20), OPEN, CLOSE, 1.0, 0).tasks[0].train)
    assert fewer == one[:20]


def test_counts_keys_and_held_out_splits():
    tasks = collection(WHOLE, [1, ~2], WHOLE, keys=[4, 5, 4], targets=("t",))
    done = cut_thinking(tasks, OPEN, CLOSE, 1.0, 0)
    train = done.tasks[0].train
    assert train.ids == ["e0", "e1", "e2"] and train.keys.tolist() == [4, 5, 4] and signed(train, 1) == [1, ~2]
    for i in range(3):
        tokens = signed(train, i)
        assert (train.processed[i], train.supervised[i]) == (len(tokens), sum(t < 0 for t in tokens))
    assert done.supervised_total < tasks.supervised_total
    assert done.tasks[0].validation is tasks.tasks[0].validation and done.tasks[0].test is tasks.tasks[0].test
    assert (done.fingerprint, done.targets) == ("print", ("t",))
    assert done.findings == [
        "old.",
        "2 train examples of 3 with their thinking cut at a random place.",
        "1 train example without supervised thinking between tags: left whole.",
    ]


def test_a_target_that_nothing_is_trained_on_from_stays_empty():
    trained, held = collection(WHOLE), EncodedTask("goal", split(), split(WHOLE), split())
    tasks = EncodedCollection([*trained.tasks, held], [], "print", ("goal",))
    done = cut_thinking(tasks, OPEN, CLOSE, 1.0, 0)
    assert len(done["goal"].train) == 0 and every(done["goal"].validation) == [WHOLE]


def test_the_open_tag_may_stand_in_the_prompt():
    example = [1, *OPEN, ~10, ~93, ~7]
    assert every(cut_thinking(collection(example), OPEN, CLOSE, 1.0, 0).tasks[0].train) == [[1, *OPEN, 93, ~7]]


@pytest.mark.parametrize(
    "example",
    [
        [1, ~2],
        [1, *supervised(*OPEN), ~10, ~7],
        [1, ~10, *supervised(*CLOSE), ~7],
        [1, *supervised(*OPEN), *supervised(*CLOSE), ~7],
        [1, *OPEN, 10, *CLOSE, ~7],
        [1, *supervised(*CLOSE), ~10, *supervised(*OPEN)],
        [1, *supervised(91, 10, 92, 11, 93), ~7],
    ],
    ids=["none", "no end", "no beginning", "empty", "context", "turned", "half a tag"],
)
def test_what_has_no_thought_is_left_alone(example):
    assert every(cut_thinking(collection(WHOLE, example), OPEN, CLOSE, 1.0, 0).tasks[0].train)[1] == example
    with pytest.raises(ApportionError, match=r"No train example has thinking between the tags.*leave out"):
        cut_thinking(collection(example), OPEN, CLOSE, 0.5, 0)


def test_of_several_thoughts_the_last_is_cut_from_its_own_tag():
    first, last = [*supervised(*OPEN), ~20, ~93, ~21], [*supervised(*OPEN), ~10, *supervised(*OPEN), ~93, ~7]
    (cut,) = every(cut_thinking(collection([1, *first, 2, *last]), OPEN, CLOSE, 1.0, 0).tasks[0].train)
    kept = [literal([1, *first, 2, *supervised(*OPEN)], [~10, *supervised(*OPEN)], [~7], k) for k in range(3)]
    assert cut in kept


@pytest.mark.parametrize(("kind", "size", "line"), [("character", 64, ""), ("bpe", 300, "\n")])
def test_tags_of_several_tokens_are_found_in_a_text(kind, size, line):
    """As they are by themselves; a BPE joins them to other signs beside them, so there each is a line."""
    opening, closing = (f"{line}{tag}{line}" for tag in ("<think>", "</think>"))
    tasks = load_tasks(source="scratchpad", examples=40, steps=[3, 4], styles=["terse"], open=opening, close=closing)
    tokenizer = train_tokenizer(tasks, kind, size)
    tags = [tokenizer(tag, add_special_tokens=False)["input_ids"] for tag in (opening, closing)]
    assert len(tags[1]) > 1
    encoded = encode(tasks, tokenizer, 128)
    train = cut_thinking(encoded, *tags, 1.0, 0)["steps4"].train
    for i in range(len(train)):
        tokens, labels = train.example(i)
        text, spoken = tokenizer.decode(tokens), tokenizer.decode(labels[labels != IGNORED])
        whole = tokenizer.decode(encoded["steps4"].train.example(i)[0])
        thought = text.partition(opening)[2].partition(closing)[0]
        assert whole.partition(opening)[2].startswith(thought) and len(thought) < 8
        assert closing not in spoken and spoken.startswith(opening) and spoken[-6:] == whole[-6:]


def test_tags_that_a_bpe_joins_to_the_text_beside_them_are_not_there():
    tasks = load_tasks(source="scratchpad", examples=40, steps=[3, 4], styles=["terse"])
    tokenizer = train_tokenizer(tasks, "bpe", 300)
    tags = [tokenizer(tag, add_special_tokens=False)["input_ids"] for tag in ("<think>", "</think>")]
    with pytest.raises(ApportionError, match=r"as the tokenizer writes them"):
        cut_thinking(encode(tasks, tokenizer, 128), *tags, 1.0, 0)


def test_a_chat_and_its_template(chat, jsonl):
    chat.add_tokens(["<think>", "</think>"])
    rows = [{"prompt": f"what is {i}?", "completion": f"<think>{i} it is</think>{i}"} for i in range(40)]
    encoded = encode(load_tasks(jsonl(rows)), chat, 128)
    ids = [tuple(chat.convert_tokens_to_ids([tag])) for tag in ("<think>", "</think>")]
    (task,) = cut_thinking(encoded, *ids, 1.0, 0)
    for i in range(len(task.train)):
        tokens, labels = task.train.example(i)
        assert chat.decode(tokens).startswith("<|im_start|>user\nwhat is")
        assert ids[1][0] in tokens and ids[1][0] not in labels
        assert chat.decode(labels[labels != IGNORED]).endswith("<|im_end|>")
