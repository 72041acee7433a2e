import numpy as np
import pytest

from apportion._errors import ApportionError
from apportion.tasks import EncodedSplit, Example, Task, TaskCollection, encode, train_tokenizer
from apportion.tasks.encoded import IGNORED
from apportion.tasks.tokenizers import breaks_before_newlines

LLAMA2 = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}[INST] {{ m.content }} [/INST]"
    "{% else %} {{ m.content }} {{ eos_token }}{% endif %}{% endfor %}"
)


def collection(*examples):
    held = Example("held", "out", "held")
    return TaskCollection([Task("t", list(examples), [held], [])])


def spoken(tokenizer, labels):
    return tokenizer.decode(labels[labels != IGNORED])


def one(tasks, tokenizer, length=512):
    return encode(tasks, tokenizer, length).tasks[0].train.example(0)


CONVERSATION = Example(
    "x",
    "y",
    "1",
    (
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": "what?"},
        {"role": "assistant", "content": "this"},
        {"role": "user", "content": "and?"},
        {"role": "assistant", "content": "that"},
    ),
)


class TestPlain:
    def test_completion_and_end_are_supervised(self, characters):
        tokens, labels = one(collection(Example("sort cba", "abc", "1")), characters)
        assert tokens.dtype == labels.dtype == np.int64
        assert characters.decode(tokens) == "sort cba\nabc<eos>"
        assert labels[:9].tolist() == [IGNORED] * 9
        assert labels[9:].tolist() == tokens[9:].tolist()

    def test_plain_text_is_supervised_from_its_second_token(self, characters):
        tokens, labels = one(collection(Example("", "abcd", "1")), characters)
        assert characters.decode(tokens) == "abcd<eos>"
        assert labels[0] == IGNORED
        assert labels[1:].tolist() == tokens[1:].tolist()

    def test_long_plain_text_becomes_several_examples(self, characters):
        encoded = encode(collection(Example("", "abcdefgh", "long"), Example("", "abc", "short")), characters, 4)
        split = encoded.tasks[0].train
        assert split.ids == ["long", "long:1", "long:2", "short"]
        texts = [characters.decode(split.example(i)[0]) for i in range(4)]
        assert texts == ["abcd", "defg", "gh<eos>", "abc<eos>"]
        assert [spoken(characters, split.example(i)[1]) for i in range(4)] == ["bcd", "efg", "h<eos>", "bc<eos>"]
        assert "1 plain text longer than 4 tokens: cut into several examples." in encoded.findings

    def test_every_assistant_turn_is_supervised(self, mini):
        tokenizer = train_tokenizer(mini, "bpe", 400)
        tokens, labels = one(collection(CONVERSATION), tokenizer)
        assert tokenizer.decode(tokens) == "be brief\nwhat?\nthis<eos>and?\nthat<eos>"
        assert spoken(tokenizer, labels) == "this<eos>that<eos>"

    def test_agrees_with_an_example_at_a_time(self, characters, playground):
        encoded = encode(playground, characters, 64)
        for task, done in zip(playground, encoded, strict=True):
            for split in ("train", "validation", "test"):
                part = getattr(done, split)
                assert part.ids == [e.id for e in task.split(split)]
                for i, example in enumerate(task.split(split)):
                    prompt = characters(example.prompt + "\n")["input_ids"]
                    answer = [*characters(example.completion)["input_ids"], characters.eos_token_id]
                    tokens, labels = part.example(i)
                    assert tokens.tolist() == prompt + answer
                    assert labels.tolist() == [IGNORED] * len(prompt) + answer
                    assert part.processed[i] == len(tokens)
                    assert part.supervised[i] == len(answer)

    def test_the_start_token_is_put_first_where_the_tokenizer_does(self, mini):
        from tokenizers.processors import TemplateProcessing

        tokenizer = train_tokenizer(mini, "bpe", 400)
        tokenizer.bos_token = "<unk>"
        tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
            single="<unk> $A", special_tokens=[("<unk>", tokenizer.bos_token_id)]
        )
        for example in (Example("a", "b", "1"), Example("", "abc", "1")):
            tokens, labels = one(collection(example), tokenizer)
            assert tokens[0] == tokenizer.bos_token_id
            assert (tokens == tokenizer.bos_token_id).sum() == 1
            assert labels[0] == IGNORED
        assert labels[1] != IGNORED

    def test_prompts_with_blank_lines_are_encoded_as_whole_texts(self, mini):
        tokenizer = train_tokenizer(mini, "bpe", 3000)
        prompts = ["Do it.\n\nNow: a\n\nb", "Do it.\n\n\n x", "\n\nx", "x \n\ny", "a\n\n", "it's\n\n's", *"ab"]
        prompts += [e.prompt for task in mini for e in task.train[:20]]
        split = encode(
            collection(*(Example(p, "out", str(i)) for i, p in enumerate(prompts))), tokenizer, 20_000
        ).tasks[0]
        for i, prompt in enumerate(prompts):
            tokens, labels = split.train.example(i)
            assert tokens[labels == IGNORED].tolist() == tokenizer(prompt + "\n")["input_ids"]

    def test_a_tokenizer_that_joins_newlines_is_not_cut_before_them(self, mini):
        from tokenizers import Regex, pre_tokenizers

        tokenizer = train_tokenizer(mini, "bpe", 3000)
        backend = tokenizer.backend_tokenizer
        assert breaks_before_newlines(backend)
        joins = pre_tokenizers.Split(Regex(r"[^\s\p{L}\p{N}]+[\r\n]*"), "isolated")
        backend.pre_tokenizer = pre_tokenizers.Sequence([joins, pre_tokenizers.ByteLevel(False, use_regex=False)])
        assert not breaks_before_newlines(backend)
        tokens, labels = one(collection(Example("Do it.\n\nx", "out", "1")), tokenizer)
        assert tokens[labels == IGNORED].tolist() == tokenizer("Do it.\n\nx\n")["input_ids"]


class TestChat:
    def test_prompt_is_the_user_and_completion_the_assistant(self, chat):
        tasks = collection(Example("what?", "this", "1"))
        tokens, labels = one(tasks, chat)
        text = "<|im_start|>user\nwhat?<|im_end|>\n<|im_start|>assistant\nthis<|im_end|>\n"
        assert chat.decode(tokens) == text
        assert tokens.tolist() == chat(text)["input_ids"]
        assert spoken(chat, labels) == "this<|im_end|>"
        assert encode(tasks, chat, 512).findings == []

    def test_every_assistant_turn_is_supervised(self, chat):
        tokens, labels = one(collection(CONVERSATION), chat)
        assert tokens.tolist() == chat(chat.apply_chat_template(CONVERSATION.messages, tokenize=False))["input_ids"]
        assert spoken(chat, labels) == "this<|im_end|>that<|im_end|>"

    def test_a_template_without_generation_prompt(self, chat):
        chat.bos_token = "<|im_start|>"
        chat.chat_template = LLAMA2
        tokens, labels = one(collection(Example("what?", "this", "1")), chat)
        assert chat.decode(tokens) == "<|im_start|>[INST] what? [/INST] this <eos>"
        assert spoken(chat, labels) == " this <eos>"

    def test_a_turn_that_merges_with_its_prompt_is_encoded_apart(self, mini):
        tokenizer = train_tokenizer(mini, "bpe", 4096)
        tokenizer.chat_template = "{% for m in messages %}{{ m.content }}{% endfor %}"
        assert len(tokenizer("the")["input_ids"]) == 1
        tasks = collection(Example("t", "he", "1"))
        tokens, labels = one(tasks, tokenizer)
        assert tokenizer.decode(tokens) == "the"
        assert spoken(tokenizer, labels) == "he"
        assert any("merging with the text before it" in f for f in encode(tasks, tokenizer, 512).findings)

    def test_a_template_that_drops_the_answer(self, chat):
        chat.chat_template = "{% for m in messages %}{% if m.role == 'user' %}{{ m.content }}{% endif %}{% endfor %}"
        with pytest.raises(
            ApportionError, match=r"'t' has nothing left in its train split.*leaves out turn 1.*example '1'"
        ):
            one(collection(Example("what?", "this", "1")), chat)

    def test_a_template_that_refuses(self, chat):
        chat.chat_template = "{{ raise_exception('no system here') }}"
        with pytest.raises(ApportionError, match="refuses example '1': no system here"):
            one(collection(Example("what?", "this", "1")), chat)


class TestLengths:
    def test_the_middle_of_the_prompt_goes_first(self, characters):
        tasks = collection(Example("sort abcdefgh", "abcdefgh", "1"))
        tokens, labels = one(tasks, characters, 16)
        assert characters.decode(tokens) == "sorfgh\nabcdefgh<eos>"
        assert spoken(characters, labels) == "abcdefgh<eos>"
        assert encode(tasks, characters, 16).findings == [
            "1 prompt in examples longer than 16 tokens: the middle cut out."
        ]

    def test_the_completion_goes_last(self, characters):
        tasks = collection(Example("sort abcdefgh", "abcdefgh" * 3, "1"))
        tokens, labels = one(tasks, characters, 16)
        assert characters.decode(tokens) == "s\n" + ("abcdefgh" * 3)[:14]
        assert len(encode(tasks, characters, 16).findings) == 2
        assert (labels != IGNORED).sum() == 14

    def test_an_example_without_supervised_tokens_is_dropped(self, mini):
        tokenizer = train_tokenizer(mini, "bpe", 400)
        tokenizer.pad_token, tokenizer.eos_token = "<pad>", None
        encoded = encode(collection(Example("", "a", "lost"), Example("p", "b", "kept")), tokenizer, 64)
        assert encoded["t"].train.ids == ["kept"]
        assert "1 example without a supervised token within 64 tokens: dropped." in encoded.findings
        with pytest.raises(ApportionError, match="'t' has no supervised tokens in its train split"):
            encode(collection(Example("", "a", "lost")), tokenizer, 64)

    def test_too_short_a_length(self, characters):
        with pytest.raises(ApportionError, match="'max_length' is 1"):
            encode(collection(Example("a", "b", "1")), characters, 1)

    def test_no_label_is_first_and_none_is_lost(self, characters, playground):
        for length in (2, 7, 64):
            encoded = encode(playground, characters, length)
            for task in encoded:
                for i in range(len(task.train)):
                    tokens, labels = task.train.example(i)
                    assert 2 <= len(tokens) <= length
                    assert labels[0] == IGNORED
                    assert (labels[1:] != IGNORED).sum() == task.train.supervised[i] > 0


class TestCollection:
    def test_counts(self, characters, playground):
        encoded = encode(playground, characters, 64)
        assert encoded.names == playground.names
        counts = encoded.counts()
        assert sum(task["train"]["supervised"] for task in counts.values()) == encoded.supervised_total
        assert counts["greet"]["train"] == {
            "examples": len(playground["greet"].train),
            "supervised": 6 * len(playground["greet"].train),
            "processed": sum(len(e.prompt) + 7 for e in playground["greet"].train),
        }
        with pytest.raises(ApportionError, match="did you mean 'greet'"):
            encoded["great"]

    def test_an_example_out_of_range(self, characters, playground):
        split = encode(playground, characters, 64)["sort"].train
        for i in (-1, len(split)):
            with pytest.raises(IndexError):
                split.example(i)

    def test_a_split_made_by_hand(self):
        tokens, labels = np.array([5, 0, 7]), np.array([IGNORED, 0, IGNORED])
        split = EncodedSplit.from_arrays(["a", "b"], [(tokens, labels), (tokens[:2], labels[:2])])
        assert split.supervised.tolist() == [1, 1]
        assert split.processed.tolist() == [3, 2]
        assert split.example(0)[0].tolist() == [5, 0, 7]
        assert split.example(0)[1].tolist() == [IGNORED, 0, IGNORED]
        assert len(EncodedSplit.from_arrays([], [])) == 0


class TestTokenizers:
    def test_end_stands_in_for_a_missing_pad(self, chat):
        chat.pad_token = None
        encode(collection(Example("a", "b", "1")), chat, 64)
        assert chat.pad_token == "<eos>"

    def test_neither_pad_nor_end(self, chat):
        chat.pad_token = chat.eos_token = None
        with pytest.raises(ApportionError, match="neither a pad nor an end token"):
            encode(collection(Example("a", "b", "1")), chat, 64)

    def test_the_tokenizers_own_truncation_is_not_used(self, characters):
        characters("abc", truncation=True, max_length=2, padding="max_length")
        tokens, _ = one(collection(Example("sort cba", "abc", "1")), characters)
        assert characters.decode(tokens) == "sort cba\nabc<eos>"
