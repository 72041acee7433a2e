"""Answers: a batch is one prompt at a time, prompts are training's, and nothing of prompt or end is left in the text."""

from functools import partial

import numpy as np
import pytest
import torch
from studies.evaluation.generation import answers, padded
from tokenizers import processors
from transformers import T5Config, T5ForConditionalGeneration

from apportion._errors import ApportionError
from apportion.tasks import encode_examples, load_tasks, train_tokenizer
from apportion.tasks.encoded import IGNORED
from apportion.tasks.encoder import Encoder
from tests.tiny import tiny_model

PROMPTS = ["reverse abcd", "sort dbca now", "a", "first letters of many words in a row", "ab", "upper xyz"]
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@pytest.fixture(scope="module")
def playground():
    return load_tasks(source="playground", scale=0.02)


@pytest.fixture
def tokenizer(playground):
    return train_tokenizer(playground, "character", 128)


@pytest.fixture
def starting(tokenizer):
    """The tokenizer with a start token before each text, as Llama's has."""
    tokenizer.add_special_tokens({"bos_token": "<s>"})
    single = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", tokenizer.bos_token_id)])
    tokenizer.backend_tokenizer.post_processor = single
    return tokenizer


@pytest.fixture
def chat(playground):
    tokenizer = train_tokenizer(playground, "bpe", 300)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    tokenizer.chat_template = CHATML
    return tokenizer


def shaken(model):
    """Weights far from their start: otherwise every answer is one token over and over."""
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.5 * torch.randn_like(parameter))
    return model.double().eval()


def llama(tokenizer):
    return shaken(tiny_model("llama", vocab=len(tokenizer), eos_token_id=1))


def t5(tokenizer):
    sizes = {"vocab_size": len(tokenizer), "d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4}
    special = {"decoder_start_token_id": 0, "pad_token_id": 0, "eos_token_id": 1}
    return shaken(T5ForConditionalGeneration(T5Config(**sizes, **special)))


def one_by_one(model, encoder, prompt, n, encoder_decoder):
    """Greedy decoding without a cache, a mask or padding: the likeliest token, n times or up to the end token."""
    ids = torch.from_numpy(encoder.prompts([prompt], n)[0]).long()[None]
    said = []
    while len(said) < n:
        with torch.no_grad():
            if encoder_decoder:
                logits = model(input_ids=ids, decoder_input_ids=torch.tensor([[0, *said]])).logits
            else:
                logits = model(input_ids=torch.cat([ids, torch.tensor([said], dtype=torch.long)], 1)).logits
        said.append(int(logits[0, -1].argmax()))
        if said[-1] == encoder.tokenizer.eos_token_id:
            break
    return encoder.tokenizer.decode(said, skip_special_tokens=True)


@pytest.mark.parametrize(("make", "encoder_decoder"), [(llama, False), (t5, True)], ids=["llama", "t5"])
class TestAnswers:
    @pytest.mark.parametrize("batch_size", [1, 4, 100])
    def test_a_batch_is_one_at_a_time(self, make, encoder_decoder, batch_size, tokenizer):
        model, encoder = make(tokenizer), Encoder(tokenizer, 64)
        said = answers(model.generate, encoder, PROMPTS, 9, batch_size, encoder_decoder=encoder_decoder)
        assert said == [one_by_one(model, encoder, prompt, 9, encoder_decoder) for prompt in PROMPTS]
        assert len(set(said)) > 2, "a model that always says the same would hide a mix-up"

    def test_the_order_of_prompts_is_that_of_answers(self, make, encoder_decoder, tokenizer):
        model, encoder = make(tokenizer), Encoder(tokenizer, 64)
        said = answers(model.generate, encoder, PROMPTS, 6, 2, encoder_decoder=encoder_decoder)
        back = answers(model.generate, encoder, PROMPTS[::-1], 6, 2, encoder_decoder=encoder_decoder)
        assert said == back[::-1]

    def test_the_answer_stops_at_the_end_token(self, make, encoder_decoder, tokenizer):
        """A letter that some answer has in its middle is made the end token: each answer is then what was before it."""
        encoder = Encoder(tokenizer, 64)
        generate = partial(make(tokenizer).generate, suppress_tokens=tokenizer.all_special_ids)
        whole = answers(generate, encoder, PROMPTS, 9, 4, encoder_decoder=encoder_decoder)
        assert {len(text) for text in whole} == {9}
        tokenizer.eos_token = next(text[k] for text in whole for k in range(2, 7) if text[k] not in text[:k])
        cut = answers(generate, encoder, PROMPTS, 9, 4, encoder_decoder=encoder_decoder)
        assert cut == [text.split(tokenizer.eos_token)[0] for text in whole] != whole

    def test_tasks_go_with_their_prompts(self, make, encoder_decoder, tokenizer):
        model, encoder = make(tokenizer), Encoder(tokenizer, 64)
        lengths = {len(encoder.prompts([prompt], 3)[0]): k for k, prompt in enumerate(PROMPTS)}
        seen = {}

        def generate(input_ids, attention_mask, tasks, **settings):
            seen.update({int(n): int(task) for n, task in zip(attention_mask.sum(1), tasks, strict=True)})
            return model.generate(input_ids=input_ids, attention_mask=attention_mask, **settings)

        numbers = list(range(10, 10 + len(PROMPTS)))
        answers(generate, encoder, PROMPTS, 3, 2, tasks=numbers, encoder_decoder=encoder_decoder)
        assert seen == {length: 10 + k for length, k in lengths.items()}


class TestPrompts:
    @pytest.mark.parametrize("kind", ["tokenizer", "starting", "chat"])
    @pytest.mark.parametrize("max_length", [100, 20])
    def test_are_what_training_puts_before_the_completion(self, kind, max_length, request, playground):
        tokenizer = request.getfixturevalue(kind)
        examples = [example for task in playground for example in task.train[:4]]
        trained = encode_examples(examples, tokenizer, max_length)
        assert len(trained.ids) == len(examples)
        encoder = Encoder(tokenizer, max_length)
        for k, example in enumerate(examples):
            ids, labels = trained.example(k)
            prompt = ids[: int(np.argmax(labels != IGNORED))]
            room = len(ids) - len(prompt)
            assert encoder.prompts([example.prompt], room)[0].tolist() == prompt.tolist()

    def test_begin_with_the_start_token(self, starting):
        assert starting.decode(Encoder(starting, 50).prompts(["abc"], 4)[0]) == "<s>abc\n"
        assert starting.decode(Encoder(starting, 50).prompts([""], 4)[0]) == "<s>"

    def test_leave_room_for_the_answer_and_lose_their_middle(self, tokenizer):
        encoder = Encoder(tokenizer, 16)
        (prompt,) = encoder.prompts(["head of the prompt and its tail"], 6)
        assert tokenizer.decode(prompt) == "head tail\n"
        assert encoder.dirt["cut_prompt"] == 1

    def test_an_empty_one_is_refused_without_a_start_token(self, tokenizer):
        with pytest.raises(ApportionError, match="Prompt 1 is empty"):
            Encoder(tokenizer, 50).prompts(["a", ""], 4)


class TestPadding:
    ROWS = (np.array([5, 6, 7]), np.array([8]))

    def test_left(self):
        ids, mask = padded(self.ROWS, 0, left=True)
        assert ids.tolist() == [[5, 6, 7], [0, 0, 8]] and mask.tolist() == [[1, 1, 1], [0, 0, 1]]

    def test_right(self):
        ids, mask = padded(self.ROWS, 0, left=False)
        assert ids.tolist() == [[5, 6, 7], [8, 0, 0]] and mask.tolist() == [[1, 1, 1], [1, 0, 0]]


class TestBadInput:
    def test_is_refused(self, tokenizer):
        model, encoder = llama(tokenizer), Encoder(tokenizer, 64)
        for sizes in ((0, 4), (4, 0)):
            with pytest.raises(ApportionError, match="both are at least 1"):
                answers(model.generate, encoder, PROMPTS, *sizes)
        with pytest.raises(ApportionError, match="6 prompts and 2 tasks"):
            answers(model.generate, encoder, PROMPTS, 4, 4, tasks=[0, 1])

    def test_no_prompts_have_no_answers(self, tokenizer):
        assert answers(llama(tokenizer).generate, Encoder(tokenizer, 64), [], 4, 4) == []
