"""No answer that is measured on is trained on after the same words of the user's, whichever way the split falls."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apportion._errors import ApportionError
from apportion.tasks import Example, encode, train_tokenizer
from apportion.tasks.collection import assemble
from apportion.tasks.example import RawTask
from apportion.tasks.splits import normalised
from apportion.tasks.templates import supervised_turns

FILL = [[f"fill {i}", "x"] for i in range(20)]


def chat(texts, number, system=None):
    roles = ("user", "assistant") * len(texts)
    turns = [{"role": role, "content": text} for role, text in zip(roles, texts, strict=False)]
    turns = [{"role": "system", "content": system}] * (system is not None) + turns
    before = "\n".join(turn["content"] for turn in turns[:-1])
    return Example(before, texts[-1], str(number), tuple(turns))


def split(talks, validation=0.3, systems=None, test=0.0):
    systems = systems or [None] * len(talks)
    examples = [chat(texts, i, system) for i, (texts, system) in enumerate(zip(talks, systems, strict=True))]
    return assemble([RawTask("t", "t.file", examples)], validation, test)


def answers(example):
    """Yield each supervised answer with the user's last words before it, and with all of them."""
    if example.messages is None:
        yield (example.prompt, example.completion), ((example.prompt,), example.completion)
        return
    said = []
    for k, turn in enumerate(example.messages):
        if turn["role"] == "user":
            said.append(normalised(turn["content"]))
        elif k in supervised_turns(example):
            yield (said[-1] if said else "", turn["content"]), (tuple(said), turn["content"])


def shared(task):
    trained = {pair for example in task.train for pairs in answers(example) for pair in pairs}
    return [pair for e in [*task.validation, *task.test] for pairs in answers(e) for pair in pairs if pair in trained]


# Few words, so that prompts, openers, later turns and answers recur; each example has a first turn of its own or shares one.
turns = st.lists(st.sampled_from(["thanks", "go on", "Why?", "why? ", "yes", "no"]), min_size=1, max_size=5)
talks = st.lists(
    st.tuples(st.integers(0, 12), turns, st.sampled_from([None, "be brief", "be kind"])), min_size=1, max_size=25
)


@settings(deadline=None)
@given(talks, st.sampled_from([0.0, 0.3]))
def test_nothing_that_is_measured_on_is_trained_on(drawn, test):
    texts = [[f"root {root}", *rest][: (len(rest) + 1) // 2 * 2] for root, rest, _ in drawn]
    tasks = split([*FILL, *texts], 0.4, [None] * 20 + [system for *_, system in drawn], test)
    assert shared(tasks["t"]) == []


def test_completions_of_one_prompt_stand_on_one_side_whatever_the_system_prompt():
    texts = [[f"question {i // 3}", f"answer {i}"] for i in range(60)]
    systems = [("Be brief.", None, "Be kind.")[i % 3] for i in range(60)]
    task = split(texts, systems=systems)["t"]
    first = [{e.messages[-2]["content"] for e in part} for part in (task.train, task.validation)]
    assert len(task.validation) >= 9 and len(task.validation) % 3 == 0
    assert not first[0] & first[1]


def test_branches_of_one_root_stand_on_one_side():
    texts = [[f"root {i // 4}", "hm", *[f"branch {i}", f"leaf {i}"]] for i in range(80)]
    task = split(texts)["t"]
    roots = [{e.messages[0]["content"] for e in part} for part in (task.train, task.validation)]
    assert roots[0] and roots[1] and not roots[0] & roots[1]


def test_shared_turns_are_context_and_counted():
    texts = [[f"question {i}", f"answer {i}", "Thanks!", "You are welcome."] for i in range(40)]
    tasks = split(texts)
    held = tasks["t"].validation
    assert held and all(example.muted == (3,) for example in held)
    assert not any(example.muted for example in tasks["t"].train)
    assert tasks.findings == [
        f"{len(held)} held-out turns trained on too after the same words of the user's: context only, not measured."
    ]


def test_muted_turns_have_no_labels_without_a_template():
    texts = [[f"question {i}", f"answer {i}", "thanks", "welcome"] for i in range(40)]
    tasks = split(texts)
    characters = train_tokenizer(tasks, "character", 128)
    encoded = encode(tasks, characters, 256)["t"]
    for side, said in ((encoded.train, "answer {}<eos>welcome<eos>"), (encoded.validation, "answer {}<eos>")):
        for i in range(len(side)):
            tokens, labels = side.example(i)
            text = characters.decode(tokens)
            number = text.split("\n")[0].removeprefix("question ")
            assert text == f"question {number}\nanswer {number}<eos>thanks\nwelcome<eos>"
            assert characters.decode(labels[labels >= 0]) == said.format(number)


def test_an_example_with_nothing_of_its_own_is_dropped():
    talks = [[f"opener {i}", f"reply {i}", f"thanks {i % 4}", f"welcome {i % 4}"] for i in range(60)]
    alone = [Example(f"Thanks {i}", f"welcome {i}", f"p{i}") for i in range(30)]
    tasks = assemble(
        [RawTask("t", "t", [chat(texts, i) for i, texts in enumerate(talks)]), RawTask("u", "u", alone)], 0.6, 0.0
    )
    lost = {example.id for example in alone} - {
        example.id for part in ("train", "validation") for example in tasks["u"].split(part)
    }
    assert lost and lost <= {"p0", "p1", "p2", "p3"}
    assert any(
        finding.startswith(f"{len(lost)} held-out example") and finding.endswith("of the user's: dropped.")
        for finding in tasks.findings
    )
    assert [shared(task) for task in tasks] == [[], []]


def test_a_task_left_without_validation_says_so():
    examples = [chat(["a?", "b", "c?", "d"], 1), chat(["c?", "d", "a?", "b"], 2)]
    with pytest.raises(ApportionError, match=r"'t' has nothing to validate on: all answers.*leave it out"):
        assemble([RawTask("t", "t.file", examples)], 0.3, 0.0)


def test_a_fixed_opener_says_what_to_do():
    with pytest.raises(ApportionError, match=r"All 30 conversations of task 't' begin with the same.*a system prompt"):
        split([["Hello", "Hi, how can I help?", f"question {i}", f"answer {i}"] for i in range(30)])


def test_a_common_opener_is_said():
    texts = [["Hello", "Hi.", f"question {i}", f"answer {i}"] for i in range(12)]
    texts += [[f"question {i}", f"answer {i}"] for i in range(40, 88)]
    findings = [finding for finding in split(texts).findings if "Hello" in finding]
    assert findings == [
        "12 of the 60 conversations of task 't' begin with 'Hello', so all of them are on one side of the split."
    ]
    assert not any("begin with" in finding for finding in split(texts[8:]).findings)


def test_conversations_without_a_users_turn_go_by_what_stands_before_the_answer():
    def told(i, system):
        turns = ({"role": "system", "content": system}, {"role": "assistant", "content": f"story {i}"})
        return Example(system, f"story {i}", str(i), turns)

    examples = [told(i, f"Tell a story of kind {i % 15}.") for i in range(45)]
    task = assemble([RawTask("t", "t.file", examples)], 0.3, 0.0)["t"]
    kinds = [{e.messages[0]["content"] for e in part} for part in (task.train, task.validation)]
    assert kinds[0] and kinds[1] and not kinds[0] & kinds[1]
    alone = [Example("", f"s {i}", str(i), ({"role": "assistant", "content": f"s {i}"},)) for i in range(20)]
    assert assemble([RawTask("t", "t.file", alone)], 0.3, 0.0)["t"].validation


def test_a_prompt_and_a_conversation_that_asks_it_stand_on_one_side():
    pairs = [Example(f"question {i}", f"answer {i}", f"p{i}") for i in range(40)]
    chats = [chat([f"Question {i} ", f"other {i}"], i, "Be brief.") for i in range(40)]
    tasks = assemble([RawTask("t", "t", pairs), RawTask("u", "u", chats)], 0.3, 0.0)
    for part in ("train", "validation"):
        mine = {e.prompt for e in tasks["t"].split(part)}
        assert mine == {normalised(e.messages[1]["content"]) for e in tasks["u"].split(part)}
