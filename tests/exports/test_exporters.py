"""What every exporter in the registry must do; a new one joins by being registered."""

import json

import pytest
import yaml

from apportion._errors import ApportionError
from apportion.exports import EXPORTERS
from apportion.exports.notes import Told, notes_on
from apportion.exports.readme import readme
from apportion.exports.shares import fixed_block
from tests.exports.handed import DRAWN, LORA, handed, shares

PLAIN = Told(moved=None, weights="uniform", cuts=0.0, capped=(), undrawn=(), scratch=False, tokenizer=None, unsaid=())

every = pytest.mark.parametrize("name", list(EXPORTERS))


def build(name):
    return EXPORTERS.build({"type": name}, "trainer")


def parsed(file, text):
    """The config in a file: its values, or for a script its names."""
    if file.endswith(".json"):
        return json.loads(text)
    if file.endswith(".yaml"):
        return yaml.safe_load(text)
    names = {"__file__": "/nowhere/mixture.py", "__name__": "mixture"}
    exec(compile(text, file, "exec"), names)
    return names


def counted(name, written):
    """Rows that a config draws of each file; of the script, shares."""
    config = {file: parsed(file, text) for file, text in written.files.items()}
    if name == "datasets":
        return {file: share for _, file, share in config["mixture.py"]["TASKS"]}
    if name == "open-instruct":
        listed = config["sft.yaml"]["dataset_mixer_list"]
        return dict(zip(listed[::2], map(int, listed[1::2]), strict=True))
    if name == "llama-factory":
        names = config["train.yaml"]["dataset"].split(",")
        info = config["data/dataset_info.json"]
        return {f"data/{info[each]['file_name']}": info[each]["num_samples"] for each in names}
    sizes = {task.file: task.rows for task in handed().tasks}
    found = dict.fromkeys(sizes, 0)
    for entry in config["sft.yaml" if name == "trl" else "axolotl.yaml"]["datasets"]:
        file = entry["data_files"] if name == "trl" else entry["path"]
        part = entry["split"].removeprefix("train")
        found[file] += int(part.strip("[:]")) if part else sizes[file]
    return found


@every
@pytest.mark.parametrize("kind", ["pairs", "answers", "chats", "text"])
def test_its_shares_of_rows_are_the_runs(name, kind):
    exporter = build(name)
    if kind not in exporter.shapes:
        return
    told = handed(exporter.shapes[kind])
    found = counted(name, exporter.write(told))
    total = sum(found.values())
    wanted = sum(draws for _, draws in DRAWN.values())
    assert total == (wanted if exporter.exact else 1)
    for task in told.tasks:
        assert found[task.file] / total == pytest.approx(task.draws / wanted, abs=1e-12)


@every
def test_it_trains_as_the_run_did(name):
    exporter = build(name)
    if not exporter.trains:
        return
    told = handed(exporter.shapes["pairs"], lora=LORA, packing=True, attention="sdpa")
    written = exporter.write(told)
    config = next(parsed(file, text) for file, text in written.files.items() if file.endswith(".yaml"))
    values = {key.replace("lora_rank", "lora_r"): value for key, value in config.items()}
    assert values["learning_rate"] == 2e-5 and values["gradient_accumulation_steps"] == 2
    assert values["seed"] == 3 and values["weight_decay"] == 0.1
    assert values["lora_r"] == 8 and values["lora_alpha"] == 16 and values["lora_dropout"] == 0.05
    assert 512 in values.values() and 0.03 in values.values() and 8 in values.values()
    assert "owner/model" in values.values()
    packs = [key for key, value in config.items() if "packing" in key and value is True]
    assert packs and values[packs[0]] is True
    epochs = next(value for key, value in config.items() if key.endswith("epochs"))
    assert epochs == 1
    whole = exporter.write(handed(exporter.shapes["pairs"]))
    config = next(parsed(file, text) for file, text in whole.files.items() if file.endswith(".yaml"))
    assert not any("lora_r" in key or "packing" in key for key in config)


@every
def test_what_the_run_had_and_the_trainer_has_not_is_said(name):
    exporter = build(name)
    told = handed(next(iter(exporter.shapes.values())))
    few = notes_on(exporter, told, PLAIN)
    assert any("rows, not tokens" in note for note in few)
    assert not any("weigh" in note or "moved" in note for note in few)
    much = Told(0.31, "adapt", 0.5, ("goal",), ("never",), True, "other/tokenizer", ("neftune_noise_alpha",))
    said = " ".join(notes_on(exporter, told, much))
    for fragment in ("'weights.type: adapt'", "thinking of 50%", "up to 31% of its draws", "'never'"):
        assert fragment in said
    assert ("'goal'" in said) == (not exporter.exact)
    for fragment in ("from a config", "'other/tokenizer'", "neftune_noise_alpha", "each example counted alike"):
        assert (fragment in said) == exporter.trains
    for note in notes_on(exporter, told, much) + list(exporter.write(told).notes):
        assert note.endswith((".", "."))


@every
def test_its_readme_has_the_command_the_shares_and_the_weights(name):
    exporter = build(name)
    told = handed(next(iter(exporter.shapes.values())))
    written = exporter.write(told)
    text = readme(exporter, told, written, ["One note."], "From a run.", fixed_block(shares()))
    assert f"    {written.command}\n" in text and "- One note.\n" in text and "From a run." in text
    assert "| 33.80% |" in text and "mean weight" not in text
    assert "`data/02.jsonl` | 100 | 7 |" in text and "      type: fixed\n" in text


@every
def test_kinds_of_rows_that_it_cannot_mix_are_refused_with_the_tasks(name):
    exporter = build(name)
    if "text" not in exporter.shapes:
        with pytest.raises(ApportionError, match=r"does not train on plain text, which task 'b' is"):
            exporter.shaped({"a": "pairs", "b": "text"})
    elif exporter.together:
        assert exporter.shaped({"a": "pairs", "b": "text"}) == {"a": "pairs", "b": "text"}
    else:
        with pytest.raises(ApportionError, match=r"Task 'a' is conversations and task 'b' plain text"):
            exporter.shaped({"a": "answers", "b": "text"})


@every
def test_conversations_are_written_alike_whether_they_have_one_answer_or_several(name):
    exporter = build(name)
    both = exporter.shaped({"a": "answers", "b": "chats"})
    assert set(both.values()) == {exporter.shapes["chats"]}


def test_an_unknown_trainer_is_told_the_nearest():
    with pytest.raises(ApportionError, match=r"Unknown trainer 'tlr' \(did you mean 'trl'\?\)"):
        build("tlr")
    with pytest.raises(ApportionError, match=r"Unknown trainer 'llamafactory' \(did you mean 'llama-factory'\?\)"):
        build("llamafactory")


@pytest.mark.parametrize("name", ["trl", "axolotl", "llama-factory"])
def test_an_alpha_that_is_rounded_is_said(name):
    written = build(name).write(handed("pairs", lora={**LORA, "alpha": 12.6}))
    assert any("12.6 was rounded to 13" in note for note in written.notes)


def test_layers_of_lora_are_named():
    layers = {**LORA, "target_modules": ["q_proj", "v_proj"]}
    configs = {
        name: yaml.safe_load(
            next(t for f, t in build(name).write(handed("pairs", lora=layers)).files.items() if "yaml" in f)
        )
        for name in ("trl", "axolotl", "llama-factory")
    }
    assert configs["trl"]["lora_target_modules"] == ["q_proj", "v_proj"]
    assert configs["axolotl"]["lora_target_modules"] == ["q_proj", "v_proj"]
    assert "lora_target_linear" not in configs["axolotl"]
    assert configs["llama-factory"]["lora_target"] == "q_proj,v_proj"
    said = build("open-instruct").write(handed("messages", lora=layers)).notes
    assert any("the run's was of q_proj, v_proj" in note for note in said)


def test_settings_that_open_instruct_has_not_are_said():
    notes = build("open-instruct").write(handed("messages")).notes
    assert any("no setting for adam_beta2" in note for note in notes)


def test_a_task_that_was_seen_often_is_listed_as_often():
    config = yaml.safe_load(build("trl").write(handed()).files["sft.yaml"])
    parts = [entry["split"] for entry in config["datasets"] if entry["data_files"] == "data/01.jsonl"]
    assert parts == ["train", "train", "train[:4]"]
    assert [e["split"] for e in config["datasets"] if e["data_files"] == "data/02.jsonl"] == ["train[:7]"]
    assert [e["split"] for e in config["datasets"] if e["data_files"] == "data/03.jsonl"] == ["train", "train"]
