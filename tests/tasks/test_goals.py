"""Targets with data of their own: what is taken out of the tasks, how they are split, and what is refused."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apportion._config import validate
from apportion._errors import ApportionError
from apportion.tasks import Example, TasksSpec, encode, load_encoded, train_tokenizer
from apportion.tasks.collection import Goals, assemble
from apportion.tasks.example import RawTask
from apportion.tasks.goals import DataSpec, TargetsSpec
from apportion.tasks.splits import normalised, opening
from apportion.tasks.targets import held_out


def rows(count, start=0, answer="answer"):
    return [{"prompt": f"question {i}", "completion": f"{answer} {i}"} for i in range(start, start + count)]


@pytest.fixture
def data(tmp_path):
    """Write tasks and targets as JSON Lines, by name, and return what reads both."""

    def write(tasks, targets, split=0.2, **block):
        for folder, files in (("data", tasks), ("goals", targets)):
            (tmp_path / folder).mkdir(exist_ok=True)
            for name, content in files.items():
                text = content if isinstance(content, str) else "".join(json.dumps(row) + "\n" for row in content)
                (tmp_path / folder / f"{name}.jsonl").write_text(text, encoding="utf-8")
        spec = validate(TasksSpec, {"path": str(tmp_path / "data"), "validation": split}, "tasks")
        return DataSpec(spec, validate(TargetsSpec, {"path": str(tmp_path / "goals")} | block, "targets"))

    return write


def prompts(task, *parts):
    return {example.prompt for part in parts for example in task.split(part)}


def all_of(task):
    return prompts(task, "train", "validation", "test")


# A prompt's number, and how it is written: what differs is not another prompt.
number = st.integers(0, 30)
written = st.sampled_from(["question {}", "Question  {}", "  QUESTION {}\n"])
texts = st.lists(st.tuples(number, written), min_size=1, max_size=30)


def raw(name, drawn):
    return RawTask(
        name, name, [Example(form.format(i), f"{name} {k}", f"{name}{k}") for k, (i, form) in enumerate(drawn)]
    )


@settings(deadline=None)
@given(texts, texts, st.sampled_from([0.3, 1.0]), st.booleans())
def test_no_prompt_of_a_target_is_left_in_a_task_unless_it_is_to_be_kept(source, target, validation, keep):
    own = [(100 + i, "question {}") for i in range(12)]
    target = [*target, *((200 + i, "question {}") for i in range(8))]
    collection = assemble(
        [raw("a", [*source, *own]), raw("b", own)], 0.3, 0.0, goals=Goals([raw("aim", target)], validation, keep)
    )
    assert collection.names == ("a", "b", "aim") and collection.targets == ("aim",)
    wanted = {form.format(i).casefold().split()[-1] for i, form in target}
    left = [
        example.prompt.split()[-1]
        for task in collection.tasks[:2]
        for part in ("train", "validation")
        for example in task.split(part)
    ]
    lost = [i for i, _ in source if str(i) in wanted]
    said = [finding for finding in collection.findings if "stands in a target" in finding]
    if keep:
        assert said == [] and len(left) == len(source) + 2 * len(own)
    else:
        assert not wanted & set(left)
        assert len(left) == len(source) + 2 * len(own) - len(lost)
        assert [finding.split()[0] for finding in said] == [str(len(lost))] * bool(lost)
    aim = collection["aim"]
    sides = [{normalised(opening(example)) for example in aim.split(part)} for part in ("train", "validation", "test")]
    assert not sides[0] & sides[1] and not sides[2] and sides[1]
    assert len(aim.train) + len(aim.validation) == len(target)
    assert bool(sides[0]) == (validation < 1)


def test_without_training_everything_is_steered_by_or_reported_on_by_prompt(data):
    goals = [{**row, "completion": f"{row['completion']} {k}"} for row in rows(10, 500) for k in range(2)]
    spec = data({"a": rows(40)}, {"goal": goals})
    collection = spec.load()
    assert not collection["goal"].train and len(collection["goal"].validation) == 20
    tokenizer = train_tokenizer(collection, "character", 64)
    targets, findings = held_out(encode(collection, tokenizer, 40))
    keys = [{split.keys[i] for _, split, i in half[-1]} for half in (targets.steer, targets.report)]
    assert [len(half[-1]) for half in (targets.steer, targets.report)] == [10, 10]
    assert [len(part) for part in keys] == [5, 5] and not keys[0] & keys[1] and findings == []


def test_no_tokenizer_is_trained_on_what_is_measured(data):
    goals = [{"prompt": f"frage {i}", "completion": "\u00e9"} for i in range(20)]
    for train, seen in ((0, False), (2, True)):
        tokenizer = train_tokenizer(data({"a": rows(40)}, {"goal": goals}, train=train).load(), "character", 64)
        assert ("\u00e9" in tokenizer.get_vocab()) is seen
    held = next(example for example in data({"a": rows(40)}, {"goal": goals}, train=2).load()["goal"].validation)
    goals = [{**row, "completion": "\u00fc" if row["prompt"] == held.prompt else "x"} for row in goals]
    tokenizer = train_tokenizer(data({"a": rows(40)}, {"goal": goals}, train=2).load(), "character", 64)
    assert "\u00fc" not in tokenizer.get_vocab()


def test_half_of_the_prompts_are_trained_on_unless_it_is_said_otherwise(data):
    for block, least, most in (({"train": 1}, 70, 130), ({"train": 1, "validation": 0.1}, 5, 40)):
        goal = data({"a": rows(40)}, {"goal": rows(200, 500)}, **block).load()["goal"]
        assert least < len(goal.validation) < most and len(goal.train) == 200 - len(goal.validation)


def test_the_tasks_are_split_as_they_were_without_targets_that_share_nothing(data):
    spec = data({"a": rows(40), "b": rows(30, 100)}, {"goal": rows(20, 500)}, train=3)
    alone, beside = spec.tasks.load(), spec.load()
    assert beside.names == ("a", "b", "goal")
    for name in ("a", "b"):
        assert alone[name] == beside[name]


def chat(*texts):
    turns = zip(("user", "assistant") * len(texts), texts, strict=False)
    return {"messages": [{"role": role, "content": text} for role, text in turns]}


def test_conversations_are_taken_out_by_their_opening_and_shared_turns_are_context(data):
    talks = [chat(f"opener {i}", f"reply {i}", "thanks", "welcome") for i in range(30)]
    goals = [chat(f"opener {i}", f"goal {i}", "thanks", "welcome") for i in range(10, 20)]
    collection = data({"talks": talks}, {"goal": goals}).load()
    left = [opening(e) for part in ("train", "validation") for e in collection["talks"].split(part)]
    assert set(left) == {f"opener {i}" for i in (*range(10), *range(20, 30))}
    assert "10 examples whose prompt stands in a target: taken out of its task." in collection.findings
    # The last answer is trained on in a task: it is no measure of the target.
    assert {example.muted for example in collection["goal"].validation} == {(3,)}
    kept = data({"talks": talks}, {"goal": goals}, overlap="keep").load()
    assert {example.muted for example in kept["goal"].validation} == {()}


def test_a_target_of_nothing_but_answers_that_are_trained_on_is_refused(data):
    # A conversation's later turn is a plain target's prompt, with the same answer.
    talks = [chat(f"opener {i}", f"reply {i}", f"question {i}", f"answer {i}") for i in range(30)]
    with pytest.raises(ApportionError, match=r"'goal' has nothing to validate on.*or leave it out"):
        data({"talks": [*talks, *talks[:1]]}, {"goal": rows(1)}).load()


@pytest.mark.parametrize("kind", ["csv", "parquet", "named columns", "names", "list", "mapping", "playground"])
def test_targets_are_read_as_tasks_are(data, tmp_path, kind):
    spec = data({"a": rows(40)}, {"goal": rows(20, 500), "other": rows(20, 700)})
    folder = tmp_path / "goals"
    if kind in {"csv", "parquet"}:
        import pyarrow as pa
        from pyarrow import csv, parquet

        table = pa.Table.from_pylist(rows(20, 500))
        file = tmp_path / f"goal.{kind}"
        (csv.write_csv if kind == "csv" else parquet.write_table)(table, str(file))
        block, names = {"path": str(file)}, ("goal",)
    elif kind == "named columns":
        (folder / "goal.jsonl").write_text("".join(json.dumps({"q": f"q {i}", "a": "x"}) + "\n" for i in range(20)))
        block = {"path": str(folder / "goal.jsonl"), "columns": {"prompt": "q", "completion": "a"}}
        names = ("goal",)
    else:
        files = [str(folder / f"{name}.jsonl") for name in ("goal", "other")]
        block, names = {
            "names": ({"path": str(folder), "names": ["other"]}, ("other",)),
            "list": ({"path": files}, ("goal", "other")),
            "mapping": ({"path": {"x": files[0], "y": files[1]}}, ("x", "y")),
            "playground": ({"source": "playground", "suite": "skills", "names": ["sort"], "scale": 0.05}, ("sort",)),
        }[kind]
    collection = DataSpec(spec.tasks, validate(TargetsSpec, block, "targets")).load()
    assert collection.targets == names and collection.names == ("a", *names)
    assert all(len(collection[name].validation) >= 20 and not collection[name].train for name in names)


class TestBad:
    @pytest.mark.parametrize(
        ("tasks", "targets", "block", "said"),
        [
            ({"a": 40}, {"goal": ""}, {}, r"goal\.jsonl"),
            ({"a": 40}, {"goal": rows(1, 500)}, {}, r"Target 'goal' has a single prompt.*other prompts"),
            ({"a": 40}, {"goal": rows(1, 500)}, {"train": 2}, r"'goal' has 1 example of one prompt"),
            ({"a": 40}, {"a": rows(20, 500)}, {}, r"A task and a target are called 'a': .*; rename one"),
            (
                {"a": 40},
                {"goal": rows(20, 500)},
                {"names": ["gaol"]},
                r"'gaol' under 'targets\.names' \(did you mean 'goal'",
            ),
            (
                {"a": 40},
                {"goal": rows(20, 500)},
                {"importance": {"gaol": 2}},
                r"Unknown target 'gaol' under 'targets\.importance' \(did you mean 'goal'",
            ),
            (
                {"a": 40, "b": 10},
                {"goal": rows(10)},
                {},
                r"Every prompt of task 'b' stands in a target.*leave the task out, or say 'targets\.overlap: keep'",
            ),
            (
                {"a": 40},
                {"goal": [{**row, "completion": " "} for row in rows(20, 500)]},
                {},
                r"'goal' .* has only blank completions",
            ),
        ],
        ids=["empty", "one prompt", "one prompt trained on", "clash", "names", "importance", "source inside", "blank"],
    )
    def test_data_that_cannot_be_targets_end_in_a_sentence(self, data, tasks, targets, block, said):
        spec = data({name: rows(count) for name, count in tasks.items()}, targets, **block)
        with pytest.raises(ApportionError, match=said):
            collection = spec.load()
            held_out(encode(collection, train_tokenizer(collection, "character", 64), 40))

    def test_a_target_that_stands_in_the_tasks_as_a_whole_is_fine(self, data):
        collection = data({"a": rows(40), "b": rows(30, 100)}, {"goal": rows(20)}).load()
        assert len(all_of(collection["a"])) == 20 and len(all_of(collection["b"])) == 30
        assert all_of(collection["goal"]) == {row["prompt"] for row in rows(20)}
        assert "20 examples whose prompt stands in a target: taken out of its task." in collection.findings

    def test_a_task_may_stand_in_the_targets_where_it_is_to_be_kept(self, data):
        collection = data({"a": rows(40), "b": rows(20)}, {"goal": rows(20)}, overlap="keep").load()
        assert len(all_of(collection["b"])) == 20

    def test_a_target_without_a_supervised_token_within_the_length_is_refused(self, data):
        # Plain text of one token has nothing to predict it from.
        spec = data({"a": rows(40)}, {"goal": [{"text": c} for c in "bcdefghi"]})
        tokenizer = train_tokenizer(spec.tasks.load(), "bpe", 400)
        tokenizer.pad_token, tokenizer.eos_token = "<pad>", None
        with pytest.raises(
            ApportionError, match=r"Target 'goal' has no supervised tokens.*'tasks\.max_length' or leave"
        ):
            load_encoded(spec, tokenizer, 40)

    @pytest.mark.parametrize(
        ("typo", "right"),
        [
            ("importence", "importance"), ("trian", "train"), ("validaton", "validation"), ("overlp", "overlap"),
            ("nams", "names"), ("colums", "columns"), ("on_bd", "on_bad"), ("sorce", "source"), ("task_feild", "task_field"),
        ],
    )  # fmt: skip
    def test_a_typo_names_the_nearest_key(self, tmp_path, typo, right):
        (tmp_path / "a.jsonl").write_text("")
        block = {"path": str(tmp_path / "a.jsonl"), typo: 1}
        with pytest.raises(ApportionError, match=rf"Unknown key 'targets\.{typo}' \(did you mean '{right}'"):
            validate(TargetsSpec, block, "targets")

    @pytest.mark.parametrize("typo", ["pth", "paths", "path_"])
    def test_a_typo_of_the_path_is_said(self, typo):
        with pytest.raises(ApportionError, match=rf"'targets' needs a 'path' to data.*there is only '{typo}'"):
            validate(TargetsSpec, {typo: "goals/"}, "targets")

    @pytest.mark.parametrize(
        ("block", "said"),
        [
            ({}, r"'targets' needs a 'path' to data, a 'source', or 'tasks'"),
            ({"train": 4}, r"'targets' needs a 'path' to data"),
            ({"path": "a.jsonl", "tasks": ["b"]}, r"'targets\.path' is for targets with data of their own"),
            ({"tasks": ["b"], "train": 2}, r"'targets\.train' is for targets with data of their own"),
            ({"tasks": ["b"], "validation": 0.2}, r"'targets\.validation' is for targets with data"),
            ({"tasks": ["b"], "overlap": "keep"}, r"'targets\.overlap' is for targets with data"),
            ({"tasks": ["b"], "trian": 2}, r"Unknown key 'targets\.trian' \(did you mean 'train'"),
            ({"tasks": ["b"], "importance": {"c": 2}}, r"Unknown target 'c' under 'targets\.importance'"),
            ({"tasks": {"b": 2}, "importance": {"b": 2}}, r"leave out 'targets\.importance'"),
            ({"path": "a.jsonl", "train": -1}, r"'targets\.train' is -1"),
            ({"path": "a.jsonl", "train": float("nan")}, r"'targets\.train' is nan"),
            ({"path": "a.jsonl", "train": "often"}, r"'targets\.train' is 'often'"),
            ({"path": "a.jsonl", "validation": 1.0}, r"'targets\.validation' is 1"),
            ({"path": "a.jsonl", "validation": 0}, r"'targets\.validation' is 0"),
            ({"path": "a.jsonl", "overlap": "drp"}, r"'targets\.overlap' is 'drp'.*drop"),
            ({"path": ""}, r"'targets\.path'"),
            ({"path": "a.xyz"}, r"a\.xyz"),
            ({"source": "playgrund"}, r"'playgrund' \(did you mean 'playground'"),
            *(
                ({"path": "a.jsonl", "importance": {"goal": bad}}, r"'targets\.importance")
                for bad in (0, -2, float("nan"), float("inf"), "much", None)
            ),
        ],
    )
    def test_a_block_that_says_nothing_clear_is_refused(self, block, said):
        with pytest.raises(ApportionError, match=said):
            validate(TargetsSpec, block, "targets")


class TestCache:
    def test_whatever_decides_the_targets_examples_is_in_the_fingerprint(self, data):
        files = {"a": rows(40)}, {"goal": rows(20, 500)}
        first = data(*files).fingerprint()
        assert first == data(*files, importance={"goal": 3}).fingerprint()
        assert first == data(*files, validation=0.2).fingerprint()  # nothing is trained on
        others = {
            first,
            data(*files).tasks.fingerprint(),
            data(*files, train=1).fingerprint(),
            data(*files, train=1, validation=0.2).fingerprint(),
            data(*files, overlap="keep").fingerprint(),
            data(*files, names=["goal"]).fingerprint(),
            data(files[0], {"goal": rows(20, 500, "reply")}).fingerprint(),
            data({"a": rows(41)}, files[1]).fingerprint(),
        }
        assert len(others) == 8
        assert data(*files, train=1).fingerprint() == data(*files, train=5).fingerprint()

    def test_encoded_targets_are_read_back_and_not_mixed_up(self, data, cache):
        spec = data({"a": rows(40)}, {"goal": rows(20, 500)}, train=1)
        tokenizer = train_tokenizer(spec.load(), "character", 64)
        assert load_encoded(spec.tasks, tokenizer, 40).targets == ()
        cold, warm = (load_encoded(spec, tokenizer, 40) for _ in range(2))
        assert cold.targets == warm.targets == ("goal",) and cold.fingerprint == warm.fingerprint
        assert cold["goal"].validation.ids == warm["goal"].validation.ids
        longer = data({"a": rows(40)}, {"goal": rows(20, 500, "a long reply")}, train=1)
        again = load_encoded(longer, tokenizer, 40)
        assert again.fingerprint != cold.fingerprint
        assert again["goal"].validation.supervised.sum() > cold["goal"].validation.supervised.sum()
        assert again["a"].train.ids == cold["a"].train.ids
        assert load_encoded(longer, tokenizer, 40).names == load_encoded(spec, tokenizer, 40).names == ("a", "goal")

    def test_results_are_kept_out_of_the_targets_data(self, data, tmp_path):
        spec = data({"a": rows(40)}, {"goal": rows(20, 500)})
        with pytest.raises(ApportionError, match=r"is inside the data, .*goals'"):
            spec.targets.keep_out(tmp_path / "goals" / "run")
        spec.targets.keep_out(tmp_path / "goals-run")
