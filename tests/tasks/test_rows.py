"""Rows as people have them: kinds side by side, several paths, columns of other names, bad rows, rows in memory."""

import gzip
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import apportion as ap
from apportion._errors import ApportionError
from apportion.plans.recipe import parse_recipe, read_yaml
from apportion.plans.run import run_recipe
from apportion.tasks import TasksSpec, load_encoded, load_tasks, train_tokenizer
from tests.training.runs import TINY


def everything(tasks):
    return {task.name: [*task.train, *task.validation, *task.test] for task in tasks}


def sizes(tasks):
    return {name: len(examples) for name, examples in everything(tasks).items()}


@pytest.fixture
def mixed(tmp_path, jsonl, pairs):
    """Every kind in one folder, with 30 rows each."""
    folder = tmp_path / "mixed"
    jsonl(pairs, "mixed/lines.jsonl")
    (folder / "list.json").write_text(json.dumps(pairs))
    (folder / "json-lines.json").write_text("\n".join(map(json.dumps, pairs)))
    (folder / "packed.jsonl.gz").write_bytes(gzip.compress("\n".join(map(json.dumps, pairs)).encode()))
    (folder / "table.csv").write_text("prompt,completion\n" + "\n".join(f"q{i},a{i}" for i in range(30)))
    pq.write_table(pa.Table.from_pylist(pairs), folder / "columns.parquet")
    (folder / "books").mkdir()
    for i in range(30):
        (folder / "books" / f"{i}.txt").write_text(f"Once upon a time {i}\n\nthere was")
    (folder / "README.md").write_text("not data")
    (folder / ".hidden.jsonl").write_text("not data either")
    return folder


class TestFiles:
    def test_kinds_side_by_side(self, mixed):
        names = ("books", "columns", "json-lines", "lines", "list", "packed", "table")
        assert sizes(load_tasks(mixed)) == dict.fromkeys(names, 30)

    def test_a_text_file_is_a_plain_text_of_its_folder(self, mixed):
        texts = everything(load_tasks(mixed / "books"))["books"]
        assert {(e.prompt, e.completion) for e in texts} == {
            ("", f"Once upon a time {i}\n\nthere was") for i in range(30)
        }
        (mixed / "books" / "blank.txt").write_text(" \n")
        assert "1 example with a blank completion: dropped." in load_tasks(mixed / "books").findings

    def test_a_text_file_alone_among_rows_is_named(self, mixed):
        (mixed / "README.txt").write_text("what these are")
        with pytest.raises(ApportionError, match=r"README\.txt is the only text file of its folder, and one"):
            load_tasks(mixed)

    def test_one_kind_says_what_it_leaves_out(self, mixed):
        tasks = load_tasks(mixed, source="jsonl")
        assert set(sizes(tasks)) == {"lines", "list", "json-lines", "packed"}
        assert tasks.findings[0].startswith("32 files of another kind than .jsonl or .json (such as ")
        assert not any("left out" in finding for finding in load_tasks(mixed).findings)
        assert set(sizes(load_tasks(mixed, source="csv"))) == {"table"}
        assert set(sizes(load_tasks(mixed, source="parquet"))) == {"columns"}

    def test_task_files_beside_rows_are_read_apart(self, mixed):
        instances = [{"input": f"in {i}", "output": f"out {i}"} for i in range(20)]
        (mixed / "task.json").write_text(json.dumps({"Definition": "Do.", "Instances": instances}))
        with pytest.raises(ApportionError, match=r"holds rows and .*task\.json one JSON object"):
            load_tasks(mixed)
        with pytest.raises(ApportionError, match=r"task\.json is a Super-NaturalInstructions task among rows"):
            load_tasks(mixed, source="files")
        for name in ("list.json", "json-lines.json"):
            (mixed / name).unlink()
        tasks = load_tasks(mixed, source="natural_instructions")
        assert sizes(tasks) == {"task": 20}
        assert tasks.findings[0].startswith("34 files of another kind than .json (such as ")

    def test_several_paths(self, mixed):
        paths = [mixed / "table.csv", mixed / "lines.jsonl", mixed / "books"]
        tasks = load_tasks(paths)
        assert tasks.names == ("table", "lines", "books")
        assert tasks.fingerprint == TasksSpec(path=[str(path) for path in paths]).fingerprint()
        assert tasks.fingerprint != load_tasks(paths[::-1]).fingerprint
        with pytest.raises(ApportionError, match="Two tasks are called 'table'"):
            load_tasks([mixed / "table.csv", mixed / "table.csv"])

    def test_texts_of_one_folder_by_several_paths(self, mixed):
        (mixed / "link").symlink_to(mixed / "books")
        books = [mixed / "books" / f"{i}.txt" for i in range(20)]
        tasks = load_tasks([*books, mixed / "lines.jsonl"])
        assert sizes(tasks) == {"books": 20, "lines": 30}
        assert tasks.fingerprint == tasks.spec.fingerprint()
        with pytest.raises(ApportionError, match="Two tasks are called 'books'"):
            load_tasks([*books, mixed / "link" / "1.txt", mixed / "link" / "2.txt"])

    def test_named_paths_are_a_task_each(self, mixed):
        tasks = load_tasks({"all": mixed, "some": mixed / "table.csv"})
        assert tasks.names == ("all", "some")
        assert sizes(tasks)["some"] == 30
        assert (
            tasks.spec.fingerprint()
            != TasksSpec(path={"all": str(mixed), "more": str(mixed / "table.csv")}).fingerprint()
        )

    def test_the_name_of_a_folder_of_texts_is_in_the_fingerprint(self, mixed):
        before = TasksSpec(path=str(mixed / "books")).fingerprint()
        assert TasksSpec(path=str((mixed / "books").rename(mixed / "novels"))).fingerprint() != before

    def test_task_files_from_several_paths(self, tmp_path):
        for name in ("a", "b"):
            instances = [{"input": f"in {i}", "output": f"{name} {i}"} for i in range(20)]
            (tmp_path / name).mkdir()
            (tmp_path / name / f"{name}.json").write_text(json.dumps({"Definition": "Do.", "Instances": instances}))
        tasks = load_tasks([tmp_path / "b", tmp_path / "a" / "a.json"])
        assert sizes(tasks) == {"b": 20, "a": 20}
        assert tasks.fingerprint != load_tasks([tmp_path / "a", tmp_path / "b"]).fingerprint

    def test_a_file_of_an_unknown_kind(self, tmp_path, pairs):
        file = tmp_path / "rows.ndjson"
        file.write_text("\n".join(map(json.dumps, pairs)))
        with pytest.raises(ApportionError, match=r"No file of a known kind \(\.jsonl, .*rows\.ndjson': say 'source'"):
            load_tasks(file)
        assert sizes(load_tasks(file, source="jsonl")) == {"rows": 30}
        with pytest.raises(ApportionError, match=r"rows\.ndjson' is no .* file: .* say the right one"):
            load_tasks(file, source="files")

    def test_a_long_cell(self, tmp_path):
        long = "x" * 200_000
        (tmp_path / "t.csv").write_text("prompt,completion\n" + "\n".join(f"{i},{long}{i}" for i in range(20)))
        assert sizes(load_tasks(tmp_path)) == {"t": 20}

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("prompt,completion,prompt\na,b,c\n", r"t\.csv:1 names the field 'prompt' twice"),
            ('prompt,completion\na,b\nc,"open\nd,e\n', r"t\.csv:3 is not CSV up to the file's end"),
        ],
    )
    def test_a_csv_file_that_no_row_can_be_made_of(self, tmp_path, text, message):
        (tmp_path / "t.csv").write_text(text)
        for on_bad in ("stop", "skip"):
            with pytest.raises(ApportionError, match=message):
                load_tasks(tmp_path, on_bad=on_bad)


class TestColumns:
    ROWS = tuple({"question": f"q {i}", "answer": f"a {i}", "text": "other"} for i in range(30))

    def test_fields_get_our_names(self, jsonl):
        tasks = load_tasks(jsonl(self.ROWS), columns={"prompt": "question", "completion": "answer"})
        assert {(e.prompt, e.completion) for e in everything(tasks)["rows"]} == {
            (f"q {i}", f"a {i}") for i in range(30)
        }

    def test_conversations_and_ids(self, jsonl):
        answer = {"role": "assistant", "content": "so."}
        rows = [{"dialogue": [{"role": "user", "content": f"why {i}?"}, answer], "key": f"k{i}"} for i in range(20)]
        tasks = load_tasks(jsonl(rows), columns={"messages": "dialogue", "id": "key"})
        assert {e.id for e in everything(tasks)["rows"]} == {f"k{i}" for i in range(20)}

    def test_names_can_change_places(self, jsonl):
        rows = [{"prompt": f"a {i}", "completion": f"q {i}"} for i in range(20)]
        tasks = load_tasks(jsonl(rows), columns={"prompt": "completion", "completion": "prompt"})
        assert everything(tasks)["rows"][0].prompt.startswith("q ")

    def test_files_that_have_our_names_already(self, jsonl, tmp_path, pairs):
        jsonl(self.ROWS, "theirs.jsonl")
        jsonl(pairs, "ours.jsonl")
        tasks = load_tasks(tmp_path, columns={"prompt": "question", "completion": "answer"})
        assert sizes(tasks) == {"ours": 30, "theirs": 30}

    @pytest.mark.parametrize(
        ("columns", "message"),
        [
            (
                {"prompt": "qestion"},
                r"'tasks.columns.prompt' is 'qestion', a field that no row has \(did you mean",
            ),
            ({"promt": "question"}, r"'tasks.columns.promt'.*'prompt'"),
            ({"prompt": 3}, r"'tasks.columns.prompt' is 3: must be text"),
            ("question", r"'tasks.columns' is 'question': must be a mapping"),
        ],
    )
    def test_bad_columns(self, jsonl, columns, message):
        with pytest.raises(ApportionError, match=message):
            load_tasks(jsonl(self.ROWS), columns=columns)


class TestBadRows:
    @pytest.fixture
    def file(self, jsonl, pairs):
        file = jsonl(pairs)
        bad = [
            '{"prompt": "x", "comp',
            "[1]",
            '{"question": "x"}',
            '{"prompt": 3, "completion": "y"}',
            "nonsense",
            "{}",
        ]
        file.write_text(
            file.read_text() + "\n" + "\n".join(bad) + "\n" + json.dumps({"prompt": "last", "completion": "y"})
        )
        return file

    def test_all_are_counted_and_five_shown(self, file):
        message = (
            r"^6 bad rows, the first 5: .*rows\.jsonl:31 is not JSON: .*; .*rows\.jsonl:32 must be an object.*; "
            r".*rows\.jsonl:33 has the fields question; .*rows\.jsonl:34: 'prompt' must be text.*; "
            r".*rows\.jsonl:35 is not JSON: [^;]*; mend the row; or leave such rows out with 'tasks.on_bad: skip'\.$"
        )
        with pytest.raises(ApportionError, match=message):
            load_tasks(file)

    def test_skipped_ones_are_a_finding(self, file):
        tasks = load_tasks(file, on_bad="skip")
        assert sizes(tasks) == {"rows": 31}
        assert tasks.findings[0].startswith("6 bad rows, the first 5: ")
        assert tasks.findings[0].endswith(": left out.")
        with pytest.raises(ApportionError, match=r"'tasks\.on_bad' is 'ignore'"):
            load_tasks(file, on_bad="ignore")

    def test_what_was_skipped_does_not_pass_from_the_cache(self, file):
        spec = TasksSpec(path=str(file), on_bad="skip")
        tokenizer = train_tokenizer(spec.load(), "character", 64)
        assert load_encoded(spec, tokenizer, 20).findings[0].startswith("6 bad rows")
        with pytest.raises(ApportionError, match="6 bad rows"):
            load_encoded(TasksSpec(path=str(file)), tokenizer, 20)

    def test_rows_of_a_table(self, tmp_path):
        lines = ["prompt,completion", *(f"q{i},a{i}" for i in range(20)), "only", "a,b,c", '"a"b,c', "q,a"]
        (tmp_path / "t.csv").write_text("\n".join(lines))
        with pytest.raises(ApportionError, match=r"3 bad rows: .*csv:22 has not as many.*csv:23 has.*csv:24 is not"):
            load_tasks(tmp_path)
        assert sizes(load_tasks(tmp_path, on_bad="skip")) == {"t": 21}

    def test_a_task_of_which_nothing_is_left(self, jsonl, tmp_path, pairs):
        jsonl(pairs, "good.jsonl")
        jsonl([{"question": "x"}], "bad.jsonl")
        with pytest.raises(
            ApportionError, match=r"Nothing is left of task 'bad' .* without 1 bad row: .*bad\.jsonl:1 "
        ):
            load_tasks(tmp_path, on_bad="skip")

    def test_an_empty_name_of_a_task(self, jsonl, pairs):
        with pytest.raises(ApportionError, match=r"rows\.jsonl:1 has an empty 'kind', which is to name its task"):
            load_tasks(jsonl([{**pairs[0], "kind": " "}, *({**row, "kind": "k"} for row in pairs)]), task_field="kind")

    def test_calls_of_tools_are_counted(self, jsonl):
        call = {"role": "assistant", "content": "let me see", "tool_calls": [{"id": "1"}]}
        silent = {"messages": [{"role": "user", "content": "x"}, {**call, "content": None}]}
        rows = [{"messages": [{"role": "user", "content": f"why {i}?"}, call]} for i in range(20)]
        assert load_tasks(jsonl(rows)).findings[0].startswith("20 examples with tool calls beside")
        with pytest.raises(ApportionError, match=r"1 bad row: .*:21: a turn of 'messages' calls tools and has no text"):
            load_tasks(jsonl([*rows, silent]))

    @pytest.mark.parametrize("depth", [300, 900, 5_000, 200_000])
    @pytest.mark.parametrize("name", ["rows.jsonl", "rows.json"])
    def test_a_prompt_nested_deep(self, tmp_path, pairs, depth, name):
        deep = '{"prompt": %s, "completion": "x"}' % ("[" * depth + "]" * depth)
        text = "\n".join([*map(json.dumps, pairs), deep])
        (tmp_path / name).write_text(text if name.endswith("l") else f"[{text.replace(chr(10), ',')}]")
        with pytest.raises(ApportionError, match=r"1 bad row: .*:31|1 bad row: .*row 30|nested too deep"):
            load_tasks(tmp_path)

    @pytest.mark.parametrize("name", ["rows.jsonl", "rows.json", "task.json"])
    def test_a_number_of_five_thousand_digits(self, tmp_path, name):
        row = '{"prompt": %s, "completion": "x"}' % ("9" * 5_000)
        row = {"rows.jsonl": row, "rows.json": f"[{row}]", "task.json": f'{{"Definition": "x",\n"Instances": {row}}}'}[
            name
        ]
        (tmp_path / name).write_text(row)
        with pytest.raises(ApportionError, match="is not read: it holds a number with too many digits"):
            load_tasks(tmp_path)


class TestMemory:
    def test_rows_are_tasks(self, pairs):
        tasks = load_tasks({"a": pairs, "b": (dict(row, completion="x") for row in pairs)}, validation=0.2)
        assert sizes(tasks) == {"a": 30, "b": 30}
        assert tasks.fingerprint == TasksSpec(**tasks.spec.model_dump(exclude_none=True)).load().fingerprint

    def test_the_same_rows_are_one_file(self, pairs, cache):
        specs = [load_tasks({"a": list(pairs)}).spec for _ in range(2)]
        assert specs[0] == specs[1]
        assert len(list(cache.glob("rows-*.jsonl"))) == 1
        assert specs[0] != load_tasks({"a": pairs[1:]}).spec

    def test_beside_files_and_with_columns(self, jsonl, pairs):
        rows = [{"question": f"q {i}", "answer": "a"} for i in range(20)]
        tasks = load_tasks({"mine": rows, "file": jsonl(pairs)}, columns={"prompt": "question", "completion": "answer"})
        assert sizes(tasks) == {"mine": 20, "file": 30}

    @pytest.mark.parametrize(
        ("rows", "message"),
        [
            ([], "Task 'a' has no rows"),
            (3, "Task 'a' is int: give a path, or a list of rows"),
            (["x"], "Row 0 of task 'a' is str: it must be a mapping"),
            ([{"prompt": np.float32(1)}], "Row 0 of task 'a' holds what JSON cannot: .*float32"),
            ([{"question": "x"}], r"1 bad row: .*rows-.*\.jsonl:1 has the fields question"),
            ({"prompt": "x"}, "Task 'a' is dict: give a path, or a list of rows"),
        ],
    )
    def test_bad_rows(self, rows, message):
        with pytest.raises(ApportionError, match=message):
            load_tasks({"a": rows})

    def test_a_name_is_needed(self, pairs):
        with pytest.raises(ApportionError, match="each path needs the name of its task"):
            load_tasks({"": pairs})
        with pytest.raises(ApportionError, match=r"Rows need the name of their task, as in {'name': rows}"):
            load_tasks(pairs)
        with pytest.raises(ApportionError, match=r"^'tasks\.path' is .{,60}: it must be a path"):
            load_tasks(iter(range(10_000)))


def test_a_run_on_rows_in_memory_can_be_run_again(pairs, tmp_path):
    tasks = load_tasks({"a": pairs, "b": pairs[:20]}, max_length=64)
    settings = {"model": TINY["model"], "budget": 60, "training": TINY["training"]}
    run = ap.train(tasks=tasks, out=tmp_path / "run", **settings)
    recipe = parse_recipe(read_yaml(run.path / "recipe.yaml"))
    again = run_recipe(recipe, tmp_path / "again")
    assert again.summary["final"] == run.summary["final"]
    assert set(recipe.tasks.load().names) == {"a", "b"}


def test_a_task_prints_its_sizes(pairs):
    tasks = load_tasks({"a": pairs})
    assert repr(tasks["a"]) == "Task('a', train: 27, validation: 3, test: 0)"
    assert repr(tasks) == "TaskCollection(1 task, 30 examples)"
