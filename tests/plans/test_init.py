"""A first recipe: whatever the data looks like, it parses, resolves and can be planned and compared as it is."""

import csv
import gzip
import json
import random
from dataclasses import replace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from apportion._errors import ApportionError
from apportion._yaml import flow, load_yaml
from apportion.plans.arms import arm_recipe
from apportion.plans.build import load_data
from apportion.plans.compare import compare_recipe
from apportion.plans.comparison_plan import plan_comparison
from apportion.plans.init import recipe_text, write_recipe
from apportion.plans.looking import Pretrained, look
from apportion.plans.recipe import read_yaml
from apportion.tasks import load_tasks, train_tokenizer
from tests.tiny import tiny_model

NAMES = ("sums", "my task", "größe", "日本 語", "a: b # c", "no", "1e3", 'it\'s "so"', "{x} [y]", "new\nline", "- dash")
SHAPES = {
    "pair": lambda n, text: {"prompt": f"question {n} {text}", "completion": text or "yes"},
    "alpaca": lambda n, text: {"instruction": f"do {n}", "input": text, "output": f"done {n}", "origin": "here"},
    "text": lambda n, text: {"text": f"{n} {text}"},
    "chat": lambda n, text: {
        "messages": [{"role": "user", "content": f"hi {n}"}, {"role": "assistant", "content": text or "ho"}]
    },
    "sharegpt": lambda n, text: {
        "conversations": [{"from": "human", "value": f"hi {n}"}, {"from": "gpt", "value": "ho"}]
    },
}


def rows_of(shape, size, seed):
    draw = random.Random(seed)
    words = ("rain", "größe", "👍", "日本", "\t", "a\u2028b", "x" * 40)
    return [SHAPES[shape](n, " ".join(draw.choices(words, k=draw.randint(0, 12)))) for n in range(size)]


def write_rows(folder, name, kind, rows):
    file = folder / f"{name}{kind}"
    if kind == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), file)
    elif kind == ".csv":
        with file.open("w", newline="", encoding="utf-8") as out:
            writer = csv.DictWriter(out, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    elif kind == ".json":
        file.write_text(json.dumps(rows), "utf-8")
    else:
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()
        file.write_bytes(gzip.compress(text) if kind.endswith(".gz") else text)
    return file


def kinds(shape):
    return [".jsonl", ".json", ".parquet", ".jsonl.gz", *([] if shape in ("chat", "sharegpt") else [".csv"])]


task = st.sampled_from(list(SHAPES)).flatmap(
    lambda shape: st.tuples(
        st.just(shape), st.sampled_from(kinds(shape)), st.sampled_from([5, 17, 120, 900, 5000]), st.integers(0, 9)
    )
)


@settings(max_examples=14, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(
    tasks=st.dictionaries(st.sampled_from(NAMES), task, min_size=1, max_size=4),
    folder=st.sampled_from(["data", "my data", "größe # 1: {a}", "it's"]),
    targeted=st.booleans(),
)
def test_the_recipe_parses_and_can_be_planned_whatever_the_data(tmp_path_factory, tasks, folder, targeted):
    root = tmp_path_factory.mktemp("init")
    data = root / folder
    data.mkdir()
    for name, (shape, kind, size, seed) in tasks.items():
        write_rows(data, name, kind, rows_of(shape, size, seed))
    found = look(data, targets=list(tasks)[:1] if targeted else ())
    recipe = write_recipe(found, root / "recipe.yaml")
    assert set(found.tasks) == set(tasks) and found.bad_rows == 0
    values = read_yaml(recipe)
    assert values["tasks"]["path"] == str(data)
    arms = list(values["arms"])
    assert arms == (["uniform"] if len(tasks) == 1 else arms) and ("adapt" in arms) == (len(tasks) > 1)
    assert ("upsample" in arms) == (targeted and len(tasks) > 1)
    planned = plan_comparison(values, arms, [0]).as_dict()
    assert list(planned["arms"]) == arms and planned["total"]["runs"] == len(arms)
    assert arm_recipe(values, arms[-1], 0).resolved()["tasks"]["path"] == str(data)


@pytest.fixture
def data(tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    write_rows(folder, "sums", ".jsonl", [{"prompt": f"{n}+1=", "completion": str(n + 1)} for n in range(400)])
    write_rows(folder, "say it", ".csv", [{"prompt": f"say {n}", "completion": f"{n} " * 5} for n in range(60)])
    return folder


def test_it_can_be_compared_as_it_is_and_from_any_folder(data, tmp_path, monkeypatch):
    recipe = write_recipe(look(data), tmp_path / "recipe.yaml")
    monkeypatch.chdir("/")
    values = {**read_yaml(recipe), "budget": 400}
    comparison = compare_recipe(values, list(values["arms"]), [0], tmp_path / "runs")
    assert set(comparison.summary["arms"]) == {"uniform", "proportional", "adapt"} and comparison.summary["equal"]
    assert comparison.report().read_text("utf-8").count("say it") > 0


def test_it_says_what_it_found_and_chose(data):
    found = look(data)
    text = recipe_text(found)
    tokens = sum(task["supervised"] for task in found.tasks.values())
    assert (
        f"2 tasks, {sum(t['examples'] for t in found.tasks.values())} examples to train on, {tokens:,} supervised"
        in text
    )
    values = load_yaml(text, "It")
    assert values["tasks"]["max_length"] % 64 == 0 and found.lengths["most"] <= values["tasks"]["max_length"]
    assert values["tasks"]["validation"] == 0.1  # of a median of 230 examples
    comments = [line for line in text.splitlines() if line.strip().startswith("#")]
    # But for those that name where the data lies, however deep that is.
    assert all(len(line) <= 125 for line in text.splitlines() if str(data) not in line) and len(comments) > 30
    assert {file.format for file in found.files} == {".jsonl", ".csv"}
    assert all(file.read == ("prompt", "completion") for file in found.files)
    assert json.loads(json.dumps(found.as_dict()))["files"][0]["rows"] == 60


def test_a_long_task_has_the_length_of_most_of_its_examples(data):
    rows = [{"prompt": "word " * (5 + n % 90), "completion": f"{n}"} for n in range(300)]
    write_rows(data, "long", ".jsonl", [{**row, "prompt": f"{n} {row['prompt']}"} for n, row in enumerate(rows)])
    found = look(data)
    assert 64 < found.blocks["tasks"]["max_length"] <= 512
    assert found.lengths["most"] <= found.blocks["tasks"]["max_length"] < found.lengths["most"] + 64


def test_what_the_user_sets_is_not_chosen(data, tmp_path):
    found = look(data, settings={"max_length": 96, "validation": 0.3, "names": ["sums"]})
    values = read_yaml(write_recipe(found, tmp_path / "recipe.yaml"))
    assert values["tasks"] == {"path": str(data), "names": ["sums"], "validation": 0.3, "max_length": 96}
    assert list(found.tasks) == ["sums"]


def test_tokens_are_counted_as_the_recipe_will(data, tmp_path):
    goal = write_rows(
        tmp_path, "goal", ".jsonl", [{"prompt": f"größe {n}", "completion": "größer " * 4} for n in range(80)]
    )
    found = look(data, targets=[str(goal)])
    recipe = arm_recipe(read_yaml(write_recipe(found, tmp_path / "recipe.yaml")), "uniform", 0)
    tasks = load_data(recipe).tasks
    assert {t.name: int(t.train.supervised.sum()) for t in tasks} == {
        name: task["supervised"] for name, task in found.tasks.items()
    }


def test_columns_that_no_rule_knows_are_named_and_not_guessed(data, tmp_path):
    rows = [{"question": f"how {n}?", "answer": f"so {n}"} for n in range(50)]
    file = write_rows(data, "qa", ".jsonl", rows)
    with pytest.raises(ApportionError, match=r"columns question, answer.*--set columns\.prompt=question") as refused:
        look(data)
    assert str(file) in str(refused.value)
    found = look(data, settings={"columns": {"prompt": "question", "completion": "answer"}})
    values = read_yaml(write_recipe(found, tmp_path / "recipe.yaml"))
    assert values["tasks"]["columns"] == {"prompt": "question", "completion": "answer"}
    assert {file.read for file in found.files} == {("prompt", "completion"), ("question", "answer")}
    assert plan_comparison(values, ["uniform"], [0]).total["runs"] == 1


def test_bad_rows_are_counted_and_left_out(data, tmp_path):
    with (data / "sums.jsonl").open("a") as file:
        file.write('{"prompt": "1+1="}\nnot json\n')
    found = look(data)
    assert found.bad_rows == 2 and any("2 bad rows" in line for line in found.findings)
    values = read_yaml(write_recipe(found, tmp_path / "recipe.yaml"))
    assert values["tasks"]["on_bad"] == "skip"
    plan_comparison(values, ["uniform"], [0])


def test_a_target_is_a_task_or_a_file_elsewhere(data, tmp_path):
    goal = write_rows(tmp_path, "goal", ".jsonl", [{"prompt": f"{n}*2=", "completion": str(2 * n)} for n in range(150)])
    named = look(data, targets=["say it"]).blocks["targets"]
    assert named == {"tasks": ["say it"]}
    assert look(data, targets=[str(data / "say it.csv")]).blocks["targets"] == named
    found = look(data, targets=[str(goal)])
    assert found.blocks["targets"] == {"path": str(goal), "train": 4} and found.targets == ("goal",)
    values = read_yaml(write_recipe(found, tmp_path / "recipe.yaml"))
    assert list(values["arms"]) == ["uniform", "proportional", "upsample", "adapt"]
    assert plan_comparison(values, list(values["arms"]), [0]).total["runs"] == 4
    with pytest.raises(ApportionError, match=r"neither a file nor one of the tasks.*did you mean 'sums'"):
        look(data, targets=["sum"])
    with pytest.raises(ApportionError, match="not both"):
        look(data, targets=["sums", str(goal)])


def test_files_are_named_where_not_all_of_a_folder_are_tasks(data, tmp_path):
    (data / "notes.txt").write_text("what these are")
    with pytest.raises(ApportionError, match=r"notes\.txt is the only text file"):
        look(data)
    found = look([data / "sums.jsonl", data / "say it.csv"], targets=[str(data / "say it.csv")])
    values = read_yaml(write_recipe(found, tmp_path / "recipe.yaml"))
    assert values["tasks"]["path"] == [str(data / "sums.jsonl"), str(data / "say it.csv")]
    assert values["targets"] == {"tasks": ["say it"]}
    plan_comparison(values, ["adapt"], [0])


def test_a_named_model_is_the_recipes(data, tmp_path, monkeypatch):
    folder = tmp_path / "model"
    tokenizer = train_tokenizer(load_tasks(data), "bpe", 300)
    tiny_model("llama", vocab=len(tokenizer)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    monkeypatch.chdir(tmp_path)
    found = look(data, model="model")
    values = read_yaml(write_recipe(found, tmp_path / "recipe.yaml"))
    assert values["model"] == {"name": str(folder)} and "lora" not in values and values["budget"].endswith("%")
    assert values["tasks"]["max_length"] <= found.pretrained.longest
    monkeypatch.chdir("/")
    plan_comparison(values, ["uniform"], [0])


def test_large_models_get_adapters(data):
    found = look(data)
    large = recipe_text(pretrained(found, 7_000_000_000))
    small = recipe_text(pretrained(found, 600_000_000))
    assert load_yaml(large, "It")["lora"] == {"r": 16, "alpha": 32} and "lora" not in load_yaml(small, "It")
    rates = [load_yaml(text, "It")["training"]["learning_rate"] for text in (large, small)]
    assert rates == [2e-4, 2e-5]


def pretrained(found, parameters):
    return replace(found, pretrained=Pretrained("org/model", parameters, 4096))


def test_one_task_is_said_to_be_nothing_to_mix(data, tmp_path):
    found = look(data / "sums.jsonl")
    text = recipe_text(found)
    assert "nothing to mix" in text and list(load_yaml(text, "It")["arms"]) == ["uniform"]
    plan_comparison(load_yaml(text, "It"), ["uniform"], [0])


@pytest.mark.parametrize("place", ["here.yaml", "data/in.yaml", "nowhere/recipe.yaml"])
def test_it_writes_over_nothing_and_not_among_the_data(data, tmp_path, place):
    (tmp_path / "here.yaml").write_text("mine")
    found = look(data)
    with pytest.raises(ApportionError, match=r"there already|among the data|no folder"):
        write_recipe(found, tmp_path / place)
    assert (tmp_path / "here.yaml").read_text() == "mine"
    assert sorted(file.name for file in tmp_path.iterdir()) == ["data", "here.yaml"] and len(list(data.iterdir())) == 2


@pytest.mark.parametrize(("files", "said"), [({}, "empty folder"), ({"a.pdf": "x"}, "No file of a known kind")])
def test_a_folder_without_data_is_refused(tmp_path, files, said):
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(ApportionError, match=said):
        look(tmp_path)
    with pytest.raises(ApportionError, match="no file or folder"):
        look(tmp_path / "nowhere")


@given(st.text(max_size=200) | st.integers() | st.dictionaries(st.text(max_size=30), st.text(max_size=30), max_size=3))
def test_a_value_in_flow_is_read_back_from_any_place(value):
    assert load_yaml(f"a: {flow(value)}\nb: {{c: {flow(value)}}}\n", "It") == {"a": value, "b": {"c": value}}
    assert "\n" not in flow(value)
