"""The harness asks the same questions here as by its own command, and what comes of it is kept in the house's words."""

import json
import os
import random
import subprocess
import sys
from importlib import resources
from pathlib import Path

import numpy as np
import pytest
import torch

from apportion._errors import ApportionError
from apportion.evaluation import catalogue, harness
from apportion.evaluation.spec import EvaluateSpec
from apportion.models.flops import ModelFlops
from tests.evaluation.models import asker, choice_task, model, tokenizer, writing_task

CHOICES = [("the sky is", [" blue", " made of stone", " seven"], 0), ("two and two is", [" four", " fish"], 0)]
QUESTIONS = [("copy: abc\n", "abc"), ("what is left", "nothing"), ("say it again", "it again")]


def spec(*tasks, **settings):
    return EvaluateSpec(tasks=list(tasks), **settings)


def asked(lm, chosen):
    benchmarks = catalogue.load(chosen.tasks, run_code=chosen.run_code)
    return {benchmark.name: harness.run(benchmark, lm, chosen) for benchmark in benchmarks}


def test_scores_are_those_of_the_harness_own_command(tmp_path):
    """The shipped tasks and a file of the user's, on one saved model: every score and every answer is the same."""
    module = model()
    module.save_pretrained(tmp_path / "model")
    tokenizer().save_pretrained(tmp_path / "model")
    (tmp_path / "tasks").mkdir()
    own = [choice_task(tmp_path / "tasks", CHOICES), writing_task(tmp_path / "tasks", QUESTIONS)]
    local = str(resources.files("apportion.evaluation") / "local")
    command = [sys.executable, "-m", "lm_eval", "run", "--model", "hf", "--device", "cpu", "--batch_size", "3"]
    command += ["--model_args", f"pretrained={tmp_path / 'model'},dtype=float32", "--limit", "5"]
    command += ["--tasks", ",".join(["bbh_navigate", "gsm8k", *own]), "--include_path", local]
    command += ["--output_path", str(tmp_path / "theirs"), "--log_samples"]
    offline = {**os.environ, "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, check=False, env=offline, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    (file,) = (tmp_path / "theirs").rglob("results_*.json")
    theirs = json.loads(file.read_text())["results"]
    found = asked(asker(module, 3), spec("bbh_navigate", "gsm8k", *own, limit=5))
    assert set(found) == set(theirs) == {"bbh_navigate", "gsm8k", "choices", "writing"}
    for name, (scores, answers) in found.items():
        numbers = {key: value for key, value in theirs[name].items() if "," in key and "_stderr" not in key}
        assert {key if "," in key else f"{key},none": s["value"] for key, s in scores["metrics"].items()} == numbers
        (samples,) = (tmp_path / "theirs").rglob(f"samples_{name}_*.jsonl")
        theirs_by_id = {row["doc_id"]: row for row in map(json.loads, samples.read_text().splitlines())}
        for answer in answers:
            row = theirs_by_id[answer["id"]]
            if scores["generates"]:
                assert row["resps"][0][0].strip() == answer["answer"]


def test_what_is_asked_and_answered_is_kept(tmp_path):
    found = asked(asker(model()), spec(choice_task(tmp_path, CHOICES), writing_task(tmp_path, QUESTIONS)))
    scores, answers = found["choices"]
    assert scores["metric"] == "acc" and not scores["generates"] and scores["examples"] == 2
    assert [answer["reference"] for answer in answers] == ["blue", "four"]
    for answer, (question, choices, right) in zip(answers, CHOICES, strict=True):
        assert answer["prompt"] == question and f" {answer['answer']}" in choices
        assert answer["score"] == float(f" {answer['answer']}" == choices[right])
    scores, answers = found["writing"]
    assert scores["generates"] and [answer["reference"] for answer in answers] == [a for _, a in QUESTIONS]
    assert scores["metrics"]["exact_match"]["value"] == np.mean([answer["score"] for answer in answers])


def test_a_choice_is_the_likeliest_by_the_models_own_losses(tmp_path):
    module = model()
    (_, answers) = asked(asker(module), spec(choice_task(tmp_path, CHOICES)))["choices"]
    for answer, (question, choices, _) in zip(answers, CHOICES, strict=True):
        sums = []
        for choice in choices:
            whole = torch.tensor([tokenizer().encode(question + choice)])
            start = len(tokenizer().encode(question))
            logs = module(whole).logits.detach().log_softmax(-1)[0]
            sums.append(sum(float(logs[i - 1, whole[0, i]]) for i in range(start, whole.shape[1])))
        assert f" {answer['answer']}" == choices[int(np.argmax(sums))]


def test_the_price_is_exact_for_scores_and_never_less_for_answers(tmp_path):
    scoring, writing = choice_task(tmp_path, CHOICES), writing_task(tmp_path, QUESTIONS)
    module = model()
    for file, exact in ((scoring, True), (writing, False)):
        chosen = spec(file)
        (benchmark,) = catalogue.load(chosen.tasks, run_code=False)
        priced = harness.price(benchmark, asker(model().to("meta"), dry=True), chosen)
        spent = harness.run(benchmark, asker(module), chosen)[0]["spent"]
        assert spent["processed"] > 0
        if exact:
            assert (priced.supervised, priced.processed) == (spent["supervised"], spent["processed"])
            assert priced.flops == pytest.approx(spent["flops"], rel=1e-12)
        else:
            assert priced.processed >= spent["processed"] and priced.flops >= spent["flops"]


def test_shots_and_limit_are_heeded_and_a_tasks_own_zero_is_not_overruled(tmp_path):
    lm = asker(model())
    plain = asked(lm, spec("bbh_navigate", limit=3))["bbh_navigate"][1]
    shown = asked(lm, spec("bbh_navigate", limit=3, shots=2))["bbh_navigate"][1]
    assert len(plain) == len(shown) == 3
    assert all(len(b["prompt"]) > 2 * len(a["prompt"]) for a, b in zip(plain, shown, strict=True))
    assert all(b["prompt"].endswith(a["prompt"]) for a, b in zip(plain, shown, strict=True))
    # Nobody is shown the question that is then asked.
    assert all(b["prompt"].count(a["prompt"]) == 1 for a, b in zip(plain, shown, strict=True))


def test_random_generators_are_left_where_they_were(tmp_path):
    lm = asker(model())
    for generator in (random.seed, np.random.seed, torch.manual_seed):
        generator(7)
    wanted = (random.random(), np.random.rand(), float(torch.rand(())))
    for generator in (random.seed, np.random.seed, torch.manual_seed):
        generator(7)
    asked(lm, spec(writing_task(tmp_path, QUESTIONS)))
    assert (random.random(), np.random.rand(), float(torch.rand(()))) == wanted


def test_what_does_not_fit_the_model_is_said_before_anything_is_asked(tmp_path):
    chosen = spec(writing_task(tmp_path, QUESTIONS, most=512))
    (benchmark,) = catalogue.load(chosen.tasks, run_code=False)
    lm = asker(model().to("meta"), dry=True)
    with pytest.raises(ApportionError, match=r"'writing' does not fit this model: .*512"):
        harness.price(benchmark, lm, chosen)


class TestShipped:
    def test_bbh_is_its_27_tasks_each_with_all_of_its_examples(self):
        found = catalogue.load(["bbh"], run_code=False)
        assert len(found) == 27 and {benchmark.set for benchmark in found} == {"bbh"}
        assert sum(len(benchmark.task.eval_docs) for benchmark in found) == 6511

    def test_gsm8k_has_its_test_split_and_its_answers_are_numbers(self):
        (benchmark,) = catalogue.load(["gsm8k"], run_code=False)
        docs = list(benchmark.task.eval_docs)
        assert len(docs) == 1319
        assert all(float(benchmark.task.doc_to_target(doc).replace(",", "")) is not None for doc in docs)

    @pytest.mark.parametrize(
        ("task", "written", "score"),
        [
            ("gsm8k", "She sells 16 - 3 - 4 = 9 eggs, and makes 9 * 2 = $18 a day.", 1.0),
            ("gsm8k", "9 * 2 = 18\n#### 18", 1.0),
            ("gsm8k", "It is 17.", 0.0),
            ("gsm8k", "no number at all", 0.0),
            ("bbh_boolean_expressions", " False", 1.0),
            ("bbh_boolean_expressions", "False.", 1.0),
            ("bbh_boolean_expressions", " True", 0.0),
            ("bbh_boolean_expressions", " False because", 0.0),
        ],
    )
    def test_an_answer_counts_for_what_it_says(self, task, written, score):
        """The first question of each, answered by hand, through the task's own filters and metric."""

        class Answering(type(asker(model()))):
            def generate_until(self, requests, disable_tqdm=True):
                return [written] * len(requests)

        module = model()
        lm = Answering(module, tokenizer(), ModelFlops.of(module), 1)
        scores, _ = asked(lm, spec(task, limit=1))[task]
        assert scores["metrics"][scores["metric"]]["value"] == score

    @pytest.mark.parametrize(
        ("name", "row", "good", "bad"),
        [
            (
                "humaneval",
                {
                    "task_id": "t/0",
                    "prompt": "def twice(x):\n",
                    "canonical_solution": "    return 2 * x\n",
                    "test": "def check(f):\n    assert f(2) == 4\n",
                    "entry_point": "twice",
                },
                "    return x + x\n",
                "    return x\n",
            ),
            (
                "mbpp",
                {
                    "task_id": 11,
                    "text": "Double a number.",
                    "code": "def twice(x): return 2 * x",
                    "test_list": ["assert twice(2) == 4"],
                    "test_setup_code": "",
                },
                "def twice(x): return x + x\n",
                "def twice(x): return x\n",
            ),
        ],
    )
    def test_code_is_judged_by_its_tests(self, tmp_path, monkeypatch, name, row, good, bad):
        monkeypatch.setenv("APPORTION_DATA", str(tmp_path))
        folder = tmp_path / "eval" / name
        folder.mkdir(parents=True)
        for split in ("test", "prompt"):
            (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for _ in range(4)))
        for written, score in ((good, 1.0), (bad, 0.0)):

            class Answering(type(asker(model()))):
                def generate_until(self, requests, disable_tqdm=True, written=written):
                    return [written] * len(requests)

            module = model()
            lm = Answering(module, tokenizer(), ModelFlops.of(module), 1)
            scores, answers = asked(lm, spec(name, limit=1, run_code=True))[name]
            assert scores["metric"] == "pass_at_1" and scores["metrics"]["pass_at_1"]["value"] == score
            assert answers[0]["score"] == score


class TestNames:
    def test_adapt11_is_eleven_sets_in_four_groups(self):
        groups = catalogue.groups_of(["adapt11"])
        assert list(groups) == ["reasoning", "reading comprehension", "code generation", "instruction following"]
        assert len(catalogue.sets_of(["adapt11"])) == len({s for sets in groups.values() for s in sets}) == 11
        assert {"bbh", "gsm8k"} <= set(groups["reasoning"])

    def test_every_set_of_a_suite_is_a_name_that_is_known(self):
        known = {*catalogue._shipped().all_tasks, *catalogue._harness().all_tasks}
        assert {name for suite in catalogue.suites() for name in catalogue.sets_of([suite])} <= known

    @pytest.mark.parametrize(
        ("names", "fragments"),
        [
            (["bhb"], ["no benchmark 'bhb'", "did you mean 'bbh'"]),
            (["gsm8"], ["no benchmark 'gsm8'", "gsm8k"]),
            (["adapt12"], ["no benchmark 'adapt12'", "adapt11"]),
            (["nowhere.yaml"], ["no file 'nowhere.yaml'"]),
            (["bbh", "bbh_navigate"], ["'bbh_navigate' is asked for twice", "'bbh' and 'bbh_navigate'"]),
            (["arc_easy"], ["'arc_easy' cannot be read", "Hub, which cannot be reached"]),
            (["adapt11"], ["'arc_challenge' cannot be read", "Hub, which cannot be reached"]),
            (["humaneval"], ["'humaneval' cannot be read", "Hub, which cannot be reached"]),
        ],
    )
    def test_a_name_that_cannot_be_had_ends_in_a_sentence(self, names, fragments):
        with pytest.raises(ApportionError) as error:
            catalogue.load(names, run_code=True)
        assert all(fragment in str(error.value) for fragment in fragments), str(error.value)

    def test_without_its_data_a_shipped_task_says_where_it_looked(self, monkeypatch, tmp_path):
        monkeypatch.setenv("APPORTION_DATA", str(tmp_path))
        with pytest.raises(ApportionError, match=r"eval/bbh/navigate\.json.*APPORTION_DATA"):
            catalogue.load(["bbh_navigate"], run_code=False)

    def test_code_is_not_run_unless_that_is_said(self, monkeypatch, tmp_path):
        monkeypatch.setenv("APPORTION_DATA", str(tmp_path))
        (tmp_path / "eval" / "humaneval").mkdir(parents=True)
        (tmp_path / "eval" / "humaneval" / "test.jsonl").write_text('{"prompt": "x", "canonical_solution": "y"}\n')
        with pytest.raises(
            ApportionError, match="'humaneval' runs code that the model writes: allow it with --run-code"
        ):
            catalogue.load(["humaneval"], run_code=False)
        assert catalogue.load(["humaneval"], run_code=True)[0].runs_code

    def test_code_that_the_harness_would_run_in_this_process_is_refused(self, tmp_path):
        file = writing_task(tmp_path, QUESTIONS)
        Path(file).write_text(Path(file).read_text() + "unsafe_code: true\n")
        with pytest.raises(ApportionError, match="would run generated code inside this process"):
            catalogue.load([file], run_code=True)
