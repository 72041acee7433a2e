"""Published chat templates: the assistant's turns and their end markers are supervised, and nothing else is."""

from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from apportion._errors import ApportionError
from apportion.tasks import Example, Task, TaskCollection, encode, encode_examples, train_tokenizer
from apportion.tasks.encoded import IGNORED
from apportion.tasks.encoder import Encoder

FOLDER = Path(__file__).parent / "templates"
MARKERS = (
    *("<|im_start|>", "<|im_end|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
    *("<start_of_turn>", "<end_of_turn>", "[INST]", "[/INST]", "<s>", "</s>", "<|end|>", "<|user|>", "<|assistant|>"),
)
# What the template writes before an answer and the model has to write too, and the end of a turn.
AROUND = {
    "chatml": ("", "<|im_end|>"),
    "generation": ("", "<|im_end|>"),
    "qwen3": ("", "<|im_end|>"),
    "llama3_2": ("", "<|eot_id|>"),
    "gemma3": ("", "<end_of_turn>"),
    "mistral_first": (" ", "</s>"),
    "mistral_last": (" ", "</s>"),
}
STRIPS = ("llama3_2", "gemma3", "mistral_last")
TOOLS = ("chatml", "generation", "qwen3", "llama3_2")


@pytest.fixture(scope="module")
def tokenizers(mini):
    """A byte-level BPE with each template and its markers as special tokens."""
    made = {}
    for file in FOLDER.glob("*.jinja"):
        made[file.stem] = train_tokenizer(mini, "bpe", 600)
        made[file.stem].add_special_tokens({"additional_special_tokens": list(MARKERS)})
        made[file.stem].bos_token, made[file.stem].eos_token = "<s>", "</s>"
        made[file.stem].chat_template = file.read_text("utf-8")
    assert set(made) == set(AROUND)
    return made


def talk(*texts, system=None):
    roles = ("user", "assistant") * len(texts)
    turns = [{"role": role, "content": text} for role, text in zip(roles, texts, strict=False)]
    return ([{"role": "system", "content": system}] if system is not None else []) + turns


def runs(tokenizer, turns, muted=()):
    """Return the example's text as the model sees it, and its supervised stretches."""
    example = Example("unused", "unused", "1", tuple(turns), muted=muted)
    _, (signed,), _ = Encoder(tokenizer, 4096).encode([example])
    text, stretches, before = "", [], False
    for token in signed:
        piece = tokenizer.decode([int(token if token >= 0 else ~token)])
        text += piece
        if token < 0:
            stretches[-1:] = [stretches[-1] + piece] if before else [*stretches[-1:], piece]
        before = token < 0
    return text, stretches


TALKS = {
    "one turn": (talk("What is it?", "This."), ["This."]),
    "a system prompt": (talk("What is it?", "This.", system="Be brief."), ["This."]),
    "several turns": (talk("a?", "one", "b?", "two", "c?", "three", system="Count."), ["one", "two", "three"]),
    "the answer stands in the question": (talk("Say yes or no: yes", "yes", "again: yes", "yes"), ["yes", "yes"]),
    "the answer is the role": (talk("user", "assistant", "assistant", "user"), ["assistant", "user"]),
    "the answer is the system prompt": (talk("why", "Be brief.", system="Be brief."), ["Be brief."]),
    "the answer looks like a part of a marker": (talk("a", "<", "b", "\nim_end|>"), None),
    "code with blank lines inside": (talk("code?", "a\n\n\n  b\n\nc"), ["a\n\n\n  b\n\nc"]),
    "white space around": (talk("a?", "  one \n", "b? ", "\n two\n\n"), None),
}


@pytest.mark.parametrize("name", AROUND)
@pytest.mark.parametrize("case", TALKS)
def test_the_assistants_turns_and_their_markers_are_supervised(tokenizers, name, case):
    tokenizer = tokenizers[name]
    turns, said = TALKS[case]
    said = said or [turn["content"] for turn in turns if turn["role"] == "assistant"]
    if name in STRIPS:
        said = [text.strip() for text in said]
    if name == "qwen3":
        said[-1] = said[-1].lstrip("\n")
    before, after = AROUND[name]
    text, stretches = runs(tokenizer, turns)
    assert text == tokenizer.apply_chat_template(turns, tokenize=False)
    assert stretches == [before + answer + after for answer in said]


@pytest.mark.parametrize("name", AROUND)
def test_what_stands_before_the_answer_is_what_the_model_is_handed(tokenizers, name):
    tokenizer = tokenizers[name]
    turns = talk("What is it?", "This.")
    switch = {"enable_thinking": False} if name == "qwen3" else {}
    handed = tokenizer.apply_chat_template(turns[:1], tokenize=False, add_generation_prompt=True, **switch)
    encoder = Encoder(tokenizer, 512)
    (prompt,) = encoder.prompts(["What is it?"], 16)
    _, (signed,), _ = encoder.encode([Example("What is it?", "This.", "1")])
    assert tokenizer.decode(prompt) == handed
    assert signed[: len(prompt)].tolist() == prompt.tolist()
    assert (signed[len(prompt) :] < 0)[0]


@pytest.mark.parametrize("name", TOOLS)
def test_a_tools_turn_is_context_and_an_empty_answer_is_not_supervised(tokenizers, name):
    turns = [
        *talk("How warm?", ""),
        {"role": "tool", "content": "21"},
        {"role": "assistant", "content": "21"},
    ]
    _, stretches = runs(tokenizers[name], turns)
    assert stretches == ["21" + AROUND[name][1]]


@pytest.mark.parametrize("name", TOOLS)
def test_the_assistant_may_open(tokenizers, name):
    turns = [{"role": "assistant", "content": "Hello."}, *talk("Hello.", "Bye.")]
    _, stretches = runs(tokenizers[name], turns)
    assert stretches == ["Hello." + AROUND[name][1], "Bye." + AROUND[name][1]]


class TestThinking:
    def test_earlier_thoughts_are_gone_and_the_last_one_is_supervised(self, tokenizers):
        turns = talk("a?", "<think>\nhm\n</think>\n\none", "one?", "<think>\nhm, one\n</think>\n\none", system="Think.")
        text, stretches = runs(tokenizers["qwen3"], turns)
        assert text.count("hm") == 1
        assert stretches == ["one<|im_end|>", "<think>\nhm, one\n</think>\n\none<|im_end|>"]

    @pytest.mark.parametrize("said", ["one", "<think>\n\n</think>\n\none"])
    def test_an_empty_thought_is_context_as_in_a_prompt_without_thinking(self, tokenizers, said):
        text, stretches = runs(tokenizers["qwen3"], talk("a?", said))
        assert text.endswith("<|im_start|>assistant\n<think>\n\n</think>\n\none<|im_end|>\n")
        assert stretches == ["one<|im_end|>"]

    def test_thoughts_between_calls_of_tools_are_supervised(self, tokenizers):
        turns = [
            *talk("a?", "<think>\nlook it up\n</think>\n\nlook"),
            {"role": "tool", "content": "look"},
            {"role": "assistant", "content": "<think>\nfound\n</think>\n\nlook"},
        ]
        _, stretches = runs(tokenizers["qwen3"], turns)
        assert stretches == [
            "<think>\nlook it up\n</think>\n\nlook<|im_end|>",
            "<think>\nfound\n</think>\n\nlook<|im_end|>",
        ]

    def test_a_prompt_that_opens_a_thought_the_conversation_does_not_have(self, other):
        other.chat_template = other.chat_template.replace("assistant\\n", "assistant\\n<think>\\n")
        _, stretches = runs(other, talk("this?", "this", "<", "<"))
        assert stretches == ["this<|im_end|>", "<<|im_end|>"]

    def test_a_prompt_that_closes_a_thought_unless_it_is_asked_for(self, other):
        other.chat_template = (
            "{% for m in messages %}{{ '<|im_start|>' ~ m.role ~ '\n' }}"
            "{{ '<think>\n\n</think>\n\n' if m.role == 'assistant' and '<think>' not in m.content }}"
            "{{ m.content ~ '<|im_end|>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}"
            "{{ '<think>\n' if enable_thinking else '<think>\n\n</think>\n\n' }}{% endif %}"
        )
        _, stretches = runs(other, talk("a", "b", "c", "<think>\nhm\n</think>\n\nd"))
        assert stretches == ["b<|im_end|>", "hm\n</think>\n\nd<|im_end|>"]


@pytest.fixture
def other(tokenizers):
    """A tokenizer to give another template to."""
    tokenizer = tokenizers["chatml"]
    kept = tokenizer.chat_template
    yield tokenizer
    tokenizer.chat_template = kept


def test_a_turn_that_the_template_does_not_end_is_counted(other):
    other.chat_template = "{% for m in messages %}{{ '<|' ~ m.role ~ '|>' ~ m.content }}{% endfor %}<|assistant|>"
    encoder = Encoder(other, 512)
    encoder.encode([Example("a", "b", "1", tuple(talk("a", "b", "c", "d")))])
    assert encoder.findings() == ["1 assistant turn after which the chat template writes no end marker of its own."]


def test_what_ends_the_whole_text_ends_only_the_last_turn(other):
    other.chat_template = (
        "{% for m in messages %}{{ '<|' ~ m.role ~ '|>\n' ~ m.content ~ '<|end|>\n' }}{% endfor %}"
        "{{ '<|assistant|>\n' if add_generation_prompt else eos_token }}"
    )
    _, stretches = runs(other, talk("a", "b", "a", "b"))
    assert stretches == ["b<|end|>", "b<|end|>\n</s>"]


@pytest.mark.parametrize("name", ["chatml", "generation", "qwen3", "mistral_first"])
def test_muted_turns_are_context(tokenizers, name):
    before, after = AROUND[name]
    text, stretches = runs(tokenizers[name], talk("a", "b", "a", "b", "c", "d"), muted=(1, 5))
    assert text == runs(tokenizers[name], talk("a", "b", "a", "b", "c", "d"))[0]
    assert stretches == [before + "b" + after]


words = st.text("ab <|>/\nthin", max_size=8)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(sorted(AROUND)), st.lists(words, min_size=2, max_size=6), st.none() | words)
@example("qwen3", ["", "<", "", "\n"], None)
@example("chatml", ["", "<", "", "\n"], None)
def test_whatever_is_said_nothing_but_the_assistant_is_supervised(tokenizers, name, texts, system):
    turns = talk(*texts[: len(texts) // 2 * 2], system=system)
    before, after = AROUND[name]
    answers = [turn["content"].strip() for turn in turns if turn["role"] == "assistant"]
    encoder = Encoder(tokenizers[name], 4096)
    _, kept, _ = encoder.encode([Example("unused", "unused", "1", tuple(turns))])
    if name == "qwen3" and any(answers) and not answers[-1] and not kept:
        # Qwen3 writes its empty thought after a last answer that is blank: what it would keep is dropped, and counted.
        assert "cannot be told apart" in encoder.findings()[0]
        return
    assert len(kept) == any(answers), encoder.findings()
    if kept:
        text, stretches = runs(tokenizers[name], turns)
        assert text == tokenizers[name].apply_chat_template(turns, tokenize=False)
        said = [stretch.removesuffix(after).removeprefix(before).strip() for stretch in stretches]
        assert said == [answer for answer in answers if answer]


class TestUnresolved:
    # Writes all that is said before all that is asked: no answer follows its question.
    SHUFFLED = (
        "{% for m in messages if m.role == 'assistant' %}{{ m.content }}{% endfor %}|"
        "{% for m in messages if m.role != 'assistant' %}{{ m.content }}{% endfor %}"
    )
    # Writes the second answer twice.
    TWICE = "{% for m in messages %}[{{ m.role }}]{{ m.content }}{{ m.content if loop.index0 == 3 }};{% endfor %}"

    @pytest.fixture
    def twice(self, other):
        other.chat_template = self.TWICE
        return other

    def test_an_example_that_cannot_be_resolved_is_dropped_and_counted(self, twice):
        good, bad = tuple(talk("a", "b")), tuple(talk("a", "b", "c", "d"))
        held = [Example("h", "i", "h")]
        task = Task("t", [Example("a", "b", "good", good), Example("c", "d", "bad", bad)], held, [])
        encoded = encode(TaskCollection([task]), twice, 512)
        assert encoded["t"].train.ids == ["good"]
        (finding,) = encoded.findings
        assert finding.startswith("1 example whose turns cannot be told apart in the chat template's text: dropped")
        assert "'bad'" in finding

    def test_nothing_resolved_is_an_error(self, twice):
        bad = tuple(talk("a", "b", "c", "d"))
        task = Task("t", [Example("c", "d", "bad", bad)], [Example("h", "i", "h")], [])
        with pytest.raises(
            ApportionError, match=r"'t' has nothing left in its train split.*writes turn 3 twice.*'bad'"
        ):
            encode(TaskCollection([task]), twice, 512)

    def test_anchors_are_not_dropped_in_silence(self, twice):
        assert len(encode_examples([Example("a", "b", "1")], twice, 512)) == 1
        with pytest.raises(ApportionError, match=r"writes turn 3 twice.*'bad'"):
            encode_examples([Example("c", "d", "bad", tuple(talk("a", "b", "c", "d")))], twice, 512)

    def test_answers_that_do_not_follow_their_questions(self, twice):
        twice.chat_template = self.SHUFFLED
        encoder = Encoder(twice, 512)
        assert encoder.encode([Example("a", "b", "1", tuple(talk("a", "b", "c", "d")))]) == ([], [], [])
        assert encoder.dirt["unresolved"] == 1

    def test_a_turn_that_the_template_leaves_out_is_counted(self, tokenizers):
        encoder = Encoder(tokenizers["mistral_last"], 512)
        encoder.encode([Example("a", "b", "1", tuple(talk("a", "b", system="Be brief.")))])
        assert encoder.findings() == ["1 turn left out of its text by the chat template."]


def test_supervised_tokens_have_labels(tokenizers):
    held = [Example("h", "i", "h")]
    task = Task("t", [Example("a", "b", "1", tuple(talk("a", "b", "c", "d")))], held, [])
    tokens, labels = encode(TaskCollection([task]), tokenizers["gemma3"], 512)["t"].train.example(0)
    assert tokenizers["gemma3"].decode(tokens[labels != IGNORED]) == "b<end_of_turn>d<end_of_turn>"
