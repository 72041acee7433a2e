"""TRL's own parser, its mixing and its trainer, on an exported folder."""

from __future__ import annotations

import json
from collections import Counter

import pytest
from trl import SFTTrainer, get_dataset, get_peft_config
from trl.scripts.sft import main, make_parser

from apportion.plans.export import export_run
from tests.exports.runs import CHATS, PAIRS, TEXTS, chat_model, encoded, labelled, trained


@pytest.fixture(scope="module", autouse=True)
def caches(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("APPORTION_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path_factory.mktemp("datasets"))
        yield


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    return trained(tmp_path_factory.mktemp("pairs"), PAIRS)


@pytest.fixture(scope="module")
def model(tmp_path_factory, pairs):
    return chat_model(tmp_path_factory.mktemp("chat") / "model", pairs.path / "model")


def parse():
    """As ``trl sft --config sft.yaml`` does, but a key that it does not know is an error."""
    return make_parser().parse_args_and_config(["--config", "sft.yaml"])


def drawn(run):
    return {
        name: task["examples"] for name, task in json.loads((run.path / "mixture.json").read_text())["tasks"].items()
    }


def check_rows(run, folder, monkeypatch):
    """Hold TRL to the run: the rows of each task, and their ids and labels."""
    monkeypatch.chdir(folder)
    script, training, model, mixture = parse()
    rows = get_dataset(mixture)[script.dataset_train_split]
    assert len(rows) == sum(drawn(run).values())
    config = get_peft_config(model)
    trainer = SFTTrainer(model=model.model_name_or_path, args=training, train_dataset=rows, peft_config=config)
    adapted = {
        name.split(".lora_A")[0].rpartition(".")[2] for name, _ in trainer.model.named_parameters() if "lora_A" in name
    }
    assert adapted == ({"q_proj"} if config else set())
    times = {}
    for name, count in drawn(run).items():
        files = [entry for entry in folder.glob("data/*.jsonl") if entry.stem[3:] == name.replace(", ", "-")]
        times[name] = divmod(count, len(files[0].read_text().splitlines()))
    whole, each = encoded(run, times)
    left = labelled(trainer.train_dataset)
    assert not whole - left
    left -= whole
    for name, (_, rest) in times.items():
        assert sum((left & each[name]).values()) == rest
    assert sum(left.values()) == sum(rest for _, rest in times.values())
    return training, model


def test_prompts_and_completions_are_trained_on_as_in_the_run(tmp_path, monkeypatch, pairs):
    done = export_run(pairs.path, "trl", tmp_path / "out")
    training, _ = check_rows(pairs, done.path, monkeypatch)
    assert training.learning_rate == 2e-3 and training.per_device_train_batch_size == 8
    assert training.num_train_epochs == 1 and training.max_length == 64 and training.bf16 is False


def test_conversations_with_one_answer_and_lora(tmp_path, monkeypatch, model):
    lora = {"r": 2, "alpha": 4, "target_modules": ["q_proj"]}
    run = trained(tmp_path, PAIRS, model={"name": str(model)}, lora=lora)
    done = export_run(run.path, "trl", tmp_path / "out")
    row = json.loads(next((done.path / "data").glob("*shout.jsonl")).read_text().splitlines()[0])
    assert [turn["role"] for turn in row["prompt"] + row["completion"]] == ["user", "assistant"]
    _, told = check_rows(run, done.path, monkeypatch)
    assert told.model_name_or_path == str(model)
    assert (told.use_peft, told.lora_r, told.lora_alpha) == (True, 2, 4)


def test_conversations_with_several_answers(tmp_path, monkeypatch, model):
    run = trained(tmp_path, CHATS, model={"name": str(model)})
    done = export_run(run.path, "trl", tmp_path / "out")
    training, _ = check_rows(run, done.path, monkeypatch)
    assert training.assistant_only_loss


def test_plain_text(tmp_path, monkeypatch, pairs):
    run = trained(tmp_path, TEXTS, model={"name": str(pairs.path / "model")})
    done = export_run(run.path, "trl", tmp_path / "out")
    monkeypatch.chdir(done.path)
    *_, mixture = parse()
    rows = get_dataset(mixture)["train"]
    assert rows.column_names == ["text"] and len(rows) == drawn(run)["notes"]
    assert any("is cut off there" in note for note in done.notes)


def test_trl_trains_by_it(tmp_path, monkeypatch, pairs):
    done = export_run(pairs.path, "trl", tmp_path / "out")
    monkeypatch.chdir(done.path)
    script, training, model, mixture = parse()
    training.max_steps = 3
    main(script, training, model, mixture)
    state = json.loads((done.path / "model" / "checkpoint-3" / "trainer_state.json").read_text())
    assert state["global_step"] == 3 and (done.path / "model" / "model.safetensors").is_file()


def test_the_parser_would_notice_a_key_that_trl_does_not_know(tmp_path, monkeypatch, pairs):
    done = export_run(pairs.path, "trl", tmp_path / "out")
    with (done.path / "sft.yaml").open("a") as file:
        file.write("interleave_probs: [0.5, 0.5]\n")
    monkeypatch.chdir(done.path)
    with pytest.raises(ValueError, match="interleave_probs"):
        parse()


def test_files_hold_the_train_split_and_nothing_that_was_held_out(tmp_path, pairs):
    done = export_run(pairs.path, "trl", tmp_path / "out")
    rows = [json.loads(line) for file in (done.path / "data").iterdir() for line in file.read_text().splitlines()]
    held = json.loads((pairs.path / "validation.json").read_text())["tasks"]
    assert Counter(map(str, rows)).most_common(1)[0][1] == 1
    total = sum(map(len, PAIRS.values()))
    assert 0 < len(rows) <= total - sum(len(task["ids"]) for task in held.values())
