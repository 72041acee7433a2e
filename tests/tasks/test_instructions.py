"""An instruction that stands apart: out of the prompts, on the task, through the cache and into the fingerprints."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from apportion._config import validate
from apportion._errors import ApportionError
from apportion.tasks import SOURCES, Task, TaskCollection, TasksSpec, encode, load_encoded, load_tasks, train_tokenizer
from apportion.tasks.collection import SPLITS, assemble
from apportion.tasks.example import Example, RawTask
from apportion.tasks.sources.playground import RULES, exact_match, solve


def everything(task):
    return [example for split in SPLITS for example in task.split(split)]


def alpaca(instruction="say it", n=20, **more):
    return [{"instruction": instruction, "input": f"in {i}", "output": f"out {i}", **more} for i in range(n)]


def without_instruction(collection):
    """The same tasks as read with their instructions apart, but without them."""
    return [Task(task.name, task.train, task.validation, task.test) for task in collection]


@pytest.mark.parametrize("name", sorted(SOURCES))
def test_every_source_has_the_key_and_leaves_instructions_where_they_are_by_default(name):
    assert SOURCES.get(name).model_fields["instruction"].default == "prompt"


class TestRows:
    @pytest.mark.parametrize("form", ["jsonl", "parquet", "csv", "hub"])
    def test_a_rows_instruction_becomes_the_tasks(self, tmp_path, form):
        rows, more = alpaca("  say it "), {}
        if form == "jsonl":
            (tmp_path / "t.jsonl").write_text("\n".join(map(json.dumps, rows)))
        elif form == "parquet":
            pq.write_table(pa.Table.from_pylist(rows), tmp_path / "t.parquet")
        elif form == "csv":
            lines = ["instruction,input,output", *(",".join(row.values()) for row in rows)]
            (tmp_path / "t.csv").write_text("\n".join(lines))
        else:
            import datasets

            datasets.disable_progress_bars()
            datasets.Dataset.from_list(rows).save_to_disk(tmp_path / "t")
            more = {"source": "hub"}
        path = tmp_path / "t" if form == "hub" else tmp_path
        (task,) = load_tasks(path, instruction="apart", **more)
        assert (task.name, task.instruction) == ("t", "say it")
        assert sorted(e.prompt for e in everything(task)) == sorted(row["input"] for row in rows)
        (whole,) = load_tasks(path, **more)
        assert whole.instruction == ""
        assert all("say it" in e.prompt for e in everything(whole))

    @pytest.mark.parametrize(
        "row",
        [
            {"prompt": "in {}", "completion": "out"},
            {"messages": [{"role": "user", "content": "in {}"}, {"role": "assistant", "content": "out"}]},
        ],
    )
    def test_other_shapes_may_carry_one(self, jsonl, row):
        rows = [json.loads(json.dumps(row).replace("{}", str(i))) | {"instruction": "say it"} for i in range(20)]
        (task,) = load_tasks(jsonl(rows), instruction="apart")
        assert task.instruction == "say it"
        assert {e.prompt for e in everything(task)} == {f"in {i}" for i in range(20)}

    def test_one_input_is_on_one_side_under_any_instruction(self, jsonl, tmp_path):
        jsonl(alpaca("say it", 40), "a.jsonl")
        jsonl(alpaca("shout it", 40), "b.jsonl")
        tasks = load_tasks(tmp_path, instruction="apart", validation=0.3)
        assert tasks.instructions == ("say it", "shout it")
        for split in ("train", "validation"):
            assert len({frozenset(e.prompt for e in task.split(split)) for task in tasks}) == 1

    def test_each_instruction_may_be_a_task(self, jsonl):
        rows = [row for pair in zip(alpaca("say it"), alpaca("shout it"), strict=True) for row in pair]
        tasks = load_tasks(jsonl(rows), instruction="apart", task_field="instruction")
        assert tasks.names == tasks.instructions == ("say it", "shout it")

    @pytest.mark.parametrize(
        ("row", "message"),
        [
            (
                {"instruction": "do it", "input": "x", "output": "y"},
                r"rows\.jsonl:21 has another .* task 'rows' before",
            ),
            ({"instruction": " ", "input": "x", "output": "y"}, r"rows\.jsonl:21 has no 'instruction' to stand apart"),
            ({"instuction": "say it", "prompt": "x", "completion": "y"}, r":21 .*did you mean 'instuction'"),
            ({"instruction": 3, "prompt": "x", "completion": "y"}, r":21: 'instruction' must be text, not int"),
            ({"instruction": "say it", "input": " ", "output": "y"}, r":21 has an empty prompt once"),
            ({"instruction": "say it", "output": "y"}, r":21 has an empty prompt once"),
            ({"instruction": "say it", "text": "y"}, r":21 has an empty prompt once"),
        ],
    )
    def test_rows_that_do_not_fit_are_named(self, jsonl, row, message):
        file = jsonl([*alpaca(), row])
        with pytest.raises(ApportionError, match=message):
            load_tasks(file, instruction="apart")
        if "instuction" not in row and row.get("instruction") != 3:
            assert load_tasks(file).instructions == ("",)

    def test_halves_of_surrogate_pairs_are_mended(self, jsonl):
        (task,) = load_tasks(jsonl(alpaca("say \ud83d it")), instruction="apart")
        assert task.instruction == "say \ufffd it"


class TestNaturalInstructions:
    def test_the_definition_stands_apart(self, mini_path, mini):
        apart = load_tasks(mini_path, instruction="apart")
        assert apart.names == mini.names
        assert apart.fingerprint != mini.fingerprint
        for task, whole in zip(apart, mini, strict=True):
            assert task.instruction
            for split in SPLITS:
                assert [(e.id, e.completion, e.references) for e in task.split(split)] == [
                    (e.id, e.completion, e.references) for e in whole.split(split)
                ]
            prompts = {e.id: e.prompt for e in everything(whole)}
            for e in everything(task):
                head, _, tail = prompts[e.id].partition(f"\n\n{e.prompt}")
                assert (head.strip(), tail) == (task.instruction, "")

    def test_a_category_has_no_single_definition(self, mini_path):
        with pytest.raises(ApportionError, match=r"'tasks\.group_by' is category, .*: group by task"):
            load_tasks(mini_path, group_by="category", instruction="apart")

    def test_a_task_without_a_definition(self, tmp_path):
        content = {"Definition": [" "], "Instances": [{"input": f"{i}", "output": ["x"]} for i in range(9)]}
        (tmp_path / "t.json").write_text(json.dumps(content))
        with pytest.raises(ApportionError, match=r"Task 't' \(.*t\.json\) has no instruction to stand apart"):
            load_tasks(tmp_path, instruction="apart")
        assert load_tasks(tmp_path).names == ("t",)

    def test_a_blank_input_is_dropped_and_counted(self, tmp_path):
        instances = [{"input": f"{i}" if i else " ", "output": ["x"]} for i in range(9)]
        (tmp_path / "t.json").write_text(json.dumps({"Definition": ["Do it."], "Instances": instances}))
        tasks = load_tasks(tmp_path, instruction="apart")
        assert len(everything(tasks["t"])) == 8
        assert tasks.findings[0].startswith("1 example with nothing but the instruction")
        assert len(everything(load_tasks(tmp_path)["t"])) == 9


class TestPlayground:
    @pytest.fixture(scope="class")
    def apart(self):
        return load_tasks(source="playground", scale=0.1, instruction="apart")

    def test_every_rule_has_words_of_its_own(self, apart):
        assert apart.instructions == tuple(rule.instruction for rule in RULES.values())
        assert len(set(apart.instructions)) == len(RULES)
        assert all(text.strip() == text != "" for text in apart.instructions)

    def test_prompts_are_bare_inputs_that_solve_and_exact_match_take(self, apart):
        whole = load_tasks(source="playground", scale=0.1)
        for task in apart:
            wanted = {e.prompt: e.completion for e in everything(whole[task.name])}
            assert {f"{task.name} {e.prompt}": e.completion for e in everything(task)} == wanted
            for e in everything(task):
                assert solve(task.name, e.prompt) == solve(task.name, f"{task.name} {e.prompt}") == e.completion
                assert exact_match(task.name, e.prompt, e.completion)
                assert not exact_match(task.name, e.prompt, e.completion + "x")

    @pytest.mark.parametrize(("scale", "few"), [(0.02, 2), (1.0, 6)])
    def test_it_splits_sanely_where_tasks_share_inputs(self, scale, few):
        sides = {}
        for task in load_tasks(source="playground", scale=scale, instruction="apart"):
            n = len(task.train) + len(task.validation)
            assert few <= len(task.validation) <= max(8, 0.17 * n)
            for split in SPLITS:
                for e in task.split(split):
                    assert sides.setdefault(e.prompt, split) == split

    @pytest.mark.parametrize("prompt", ["copy ab", "xyz", "3719", "a abc", ""])
    def test_prompts_of_other_tasks_are_refused(self, prompt):
        with pytest.raises(ApportionError, match="not of playground task 'sort'"):
            solve("sort", prompt)


class TestSetting:
    @pytest.mark.parametrize(
        ("block", "message"),
        [
            ({"source": "playground", "instruction": "aprt"}, r"'tasks\.instruction' is 'aprt': .*'prompt' or 'apart'"),
            ({"source": "playground", "instructions": "apart"}, r"'tasks\.instructions' \(did you mean 'instruction'"),
            ({"source": "playground", "instruction": None}, r"'tasks\.instruction' is None"),
        ],
    )
    def test_typos(self, block, message):
        with pytest.raises(ApportionError, match=message):
            validate(TasksSpec, block, "tasks")

    def test_the_default_said_aloud_is_the_default(self, jsonl):
        path = str(jsonl(alpaca()))
        said, unsaid, apart = (
            TasksSpec(path=path, **more) for more in ({"instruction": "prompt"}, {}, {"instruction": "apart"})
        )
        assert said.fingerprint() == unsaid.fingerprint() != apart.fingerprint()
        assert apart.fingerprint() == apart.load().fingerprint

    def test_only_the_tasks_that_are_kept_need_one(self, tmp_path):
        for name, definition in (("a", "Do it."), ("b", "")):
            content = {"Definition": [definition], "Instances": [{"input": f"{i}", "output": ["x"]} for i in range(9)]}
            (tmp_path / f"{name}.json").write_text(json.dumps(content))
        assert load_tasks(tmp_path, instruction="apart", names=["a"]).instructions == ("Do it.",)

    def test_content_fingerprints_differ_by_instruction(self):
        def collection(*instructions):
            return TaskCollection(
                [
                    Task(name, [Example("a", "b", "1")], [], [], text)
                    for name, text in zip("st", instructions, strict=True)
                ]
            ).fingerprint

        prints = [collection(*pair) for pair in (("", ""), ("x", ""), ("", "x"), ("x", "y"), ("y", "x"))]
        assert len(set(prints)) == len(prints)

    def test_blank_prompts_of_raw_tasks_alone_are_an_error(self):
        blank = [Example("", f"{i}", f"{i}") for i in range(9)]
        with pytest.raises(ApportionError, match="only blank completions or prompts"):
            assemble([RawTask("t", "file", blank, instruction="do it")], 0.1, 0.0)
        assert len(everything(assemble([RawTask("t", "file", blank)], 0.1, 0.0)["t"])) == 9


class TestEncoded:
    @pytest.fixture
    def spec(self, jsonl, tmp_path):
        jsonl(alpaca("say it"), "a.jsonl")
        jsonl(alpaca("shout \u00e9 \u732b"), "b.jsonl")
        return TasksSpec(path=str(tmp_path), instruction="apart")

    def test_instructions_come_back_from_the_cache_in_task_order(self, spec, cache):
        tokenizer = train_tokenizer(spec.load(), "character", 64)
        cold, warm = (load_encoded(spec, tokenizer, 64) for _ in range(2))
        assert cold.names == warm.names == ("a", "b")
        assert cold.instructions == warm.instructions == ("say it", "shout \u00e9 \u732b")
        assert len(list(cache.glob("encoded-*.arrow"))) == 1
        assert warm["b"].instruction == warm.instructions[1]
        plain = load_encoded(TasksSpec(path=spec.path), tokenizer, 64)
        assert plain.instructions == ("", "")
        assert len(list(cache.glob("encoded-*.arrow"))) == 2

    def test_without_instructions_the_file_is_what_it_always_was(self, spec, cache, characters):
        load_encoded(TasksSpec(path=spec.path), characters, 64)
        (file,) = cache.glob("encoded-*.arrow")
        assert set(pa.ipc.open_file(pa.memory_map(str(file), "r")).schema.metadata) == {b"names"}

    def test_a_changed_instruction_misses_the_cache(self, spec, jsonl, characters):
        before = load_encoded(spec, characters, 64)
        jsonl(alpaca("say that"), "a.jsonl")
        after = load_encoded(spec, characters, 64)
        assert before.fingerprint != after.fingerprint
        assert (before.instructions[0], after.instructions[0]) == ("say it", "say that")

    def test_collections_made_in_memory_differ_by_instruction(self, spec, characters):
        tasks = spec.load()
        with_them = encode(TaskCollection(tasks.tasks), characters, 64)
        without = encode(TaskCollection(without_instruction(tasks)), characters, 64)
        assert with_them.fingerprint != without.fingerprint
        assert without.instructions == ("", "")
        for one, other in zip(with_them, without, strict=True):
            assert all(
                (a == b).all()
                for i in range(len(one.train))
                for a, b in zip(one.train.example(i), other.train.example(i), strict=True)
            )

    def test_trained_tokenizers_know_the_instructions(self, spec):
        tasks = spec.load()
        assert "\u732b" in train_tokenizer(tasks, "character", 64).get_vocab()
        assert "\u732b" not in train_tokenizer(TaskCollection(without_instruction(tasks)), "character", 64).get_vocab()
