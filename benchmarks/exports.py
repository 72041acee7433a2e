"""Exports as other trainers read them: each config by the trainer's own parser, each row by its own preparation.

    python benchmarks/exports.py [--only axolotl,llama-factory] [--open-instruct CHECKOUT] [--json]

Three tiny runs (prompts and completions; conversations with several answers, by LoRA; plain text) are exported. Each
trainer is installed with plain pip in an environment of its own in a temporary folder, without what only a GPU or its web
pages need. It then parses the exported config, and loads and tokenizes the exported rows. ``rows`` is how many it would
train on in one epoch, over how many the run drew. ``ids`` is the share of them whose tokens are those of a row that the run
trained on, ``labels`` the share in which the same of these are trained on too. ``unknown`` are keys of the config that the
parser does not know. Open Instruct is not on the package index: of a checkout the keys are looked up in what its
``finetune.py`` declares. TRL and datasets are held to more by tests/exports.
"""

from __future__ import annotations

import argparse
import ast
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from transformers import AutoModelForCausalLM, AutoTokenizer

import apportion as ap
from apportion.plans.build import load_data
from apportion.plans.recipe import parse_recipe

ROOT = Path(__file__).parents[1]
# What each needs to parse and to prepare data, of what it asks for; and what it needs without saying so.
NEEDED = {
    "axolotl": (
        "transformers accelerate datasets peft trl pydantic addict PyYAML colorama python-dotenv huggingface_hub tokenizers "
        "posthog numba numpy packaging",
        ["pillow"],
    ),
    "llamafactory": (
        "transformers accelerate datasets peft trl omegaconf pandas numpy scipy sentencepiece tiktoken protobuf pyyaml "
        "pydantic einops fire packaging safetensors",
        [],
    ),
}
FOLDERS = {"axolotl": "axolotl", "llama-factory": "llamafactory"}

AXOLOTL = """
import json, sys, yaml
from axolotl.utils.config import validate_config
from axolotl.utils.data.sft import prepare_datasets
from axolotl.utils.dict import DictDefault
from transformers import AutoTokenizer

def main():
    given = yaml.safe_load(open("axolotl.yaml"))
    cfg = validate_config(DictDefault(given))
    unknown = sorted(set(given) - set(cfg))
    cfg.batch_size, cfg.world_size = cfg.micro_batch_size, 1
    rows, _, steps, _ = prepare_datasets(cfg, AutoTokenizer.from_pretrained(cfg.base_model))
    found = [[row["input_ids"], row["labels"]] for row in rows]
    json.dump({"unknown": unknown, "steps": steps, "rows": found}, open(sys.argv[1], "w"))

if __name__ == "__main__":
    main()
"""
LLAMA_FACTORY = """
import json, sys, types, yaml
from llamafactory.hparams import get_train_args

def main():
    given = yaml.safe_load(open("train.yaml"))
    model, data, training, tuning, _ = get_train_args(given)
    # It imports torchaudio for sounds, whose builds go with other builds of torch.
    sys.modules["torchaudio"] = types.ModuleType("torchaudio")
    from llamafactory.data import get_dataset, get_template_and_fix_tokenizer
    from llamafactory.model import load_tokenizer
    tokenizer = load_tokenizer(model)
    template = get_template_and_fix_tokenizer(tokenizer["tokenizer"], data)
    rows = get_dataset(template, model, data, training, stage=tuning.stage, **tokenizer)["train_dataset"]
    found = [[row["input_ids"], row.get("labels") or row["input_ids"]] for row in rows]
    json.dump({"unknown": [], "steps": None, "rows": found}, open(sys.argv[1], "w"))

if __name__ == "__main__":
    main()
"""
READERS = {"axolotl": AXOLOTL, "llamafactory": LLAMA_FACTORY}

TEMPLATE = (
    "{% for turn in messages %}{{ '<|im_start|>' + turn['role'] + '\\n' + turn['content'] + '<|im_end|>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
CONFIG = {
    "model_type": "llama",
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "tie_word_embeddings": True,
}
WORDS = [f"{a}{b}{c}" for a in "bdgkmp" for b in "aeiou" for c in "lnrst"]


def chat(*texts: str) -> dict[str, Any]:
    return {"messages": [{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(texts)]}


def cases(folder: Path) -> Iterator[tuple[str, ap.plans.Run]]:
    """Yield each kind of rows and a run on them."""
    common = {
        "budget": 1500,
        "training": {"learning_rate": 2e-3, "per_device_train_batch_size": 8, "warmup_steps": 0.1},
        "validation": {"every": "100%", "examples_per_task": 4},
    }

    def train(name: str, model: Any, tasks: dict[str, list[dict[str, Any]]], **blocks: Any) -> ap.plans.Run:
        (folder / name / "data").mkdir(parents=True)
        for task, rows in tasks.items():
            text = "".join(json.dumps(row) + "\n" for row in rows)
            (folder / name / "data" / f"{task}.jsonl").write_text(text, "utf-8")
        data = {"path": str(folder / name / "data"), "max_length": 96}
        return ap.train(model=model, tasks=data, out=folder / name / "run", **common, **blocks)

    def pairs(words: list[str]) -> list[dict[str, str]]:
        return [{"prompt": f"Spell {word}.", "completion": " ".join(word)} for word in words]

    scratch = {"config": CONFIG, "tokenizer": {"train": "character"}}
    first = train("pairs", scratch, {"spell it": pairs(WORDS), "a, few": pairs([w[::-1] for w in WORDS[:20]])})
    yield "pairs", first
    chats = [chat(f"Shout {word}.", word.upper(), f"Now spell {word}.", " ".join(word)) for word in WORDS]
    told = chat_model(folder / "model", first.path / "model")
    lora = {"r": 4, "alpha": 8}
    yield (
        "chats",
        train("chats", str(told), {"both": chats, "one": [chat(f"Say {w}.", w) for w in WORDS[:30]]}, lora=lora),
    )
    texts = {
        "notes": [{"text": f"{word} is read {' '.join(word)}."} for word in WORDS],
        "few": pairs_as_text(WORDS[:20]),
    }
    yield "text", train("text", str(first.path / "model"), texts)


def pairs_as_text(words: list[str]) -> list[dict[str, str]]:
    return [{"text": f"Backwards {word} is {word[::-1]}."} for word in words]


def chat_model(folder: Path, start: Path) -> Path:
    """Write a model whose tokenizer has a chat template."""
    tokenizer = AutoTokenizer.from_pretrained(start)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>"], "eos_token": "<|im_end|>"})
    tokenizer.chat_template = TEMPLATE
    model = AutoModelForCausalLM.from_pretrained(start)
    model.resize_token_embeddings(len(tokenizer))
    model.config.eos_token_id = tokenizer.eos_token_id
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def environment(package: str, folder: Path) -> tuple[Path, str]:
    """Install a trainer with what it needs here; return its Python and its version."""
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    python = folder / "bin" / "python"
    pip = [
        str(python),
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
        "-c",
        str(ROOT / "constraints.txt"),
    ]
    subprocess.run([*pip, "--no-deps", package], check=True)
    said = "import importlib.metadata as m, json, sys; print(json.dumps([m.version(sys.argv[1]), m.requires(sys.argv[1])]))"
    done = subprocess.run([python, "-c", said, package], check=True, capture_output=True, text=True)
    version, asked = json.loads(done.stdout)
    names, more = NEEDED[package]
    wanted = {name.lower().replace("_", "-") for name in names.split()}
    chosen = [line.partition(";")[0] for line in asked if name_of(line) in wanted and "extra ==" not in line]
    # Its own pins hold for these alone, so that what is left out does not stop pip.
    subprocess.run([*pip, "torch", *chosen, *more], check=True, stderr=subprocess.DEVNULL)
    return python, version


def name_of(line: str) -> str:
    name = line
    for mark in "<>=!~;[ (":
        name = name.partition(mark)[0]
    return name.strip().lower().replace("_", "-")


def read(package: str, python: Path, export: Path, room: Path) -> dict[str, Any]:
    """Return what the trainer makes of an export."""
    script, answer = room / f"read_{package}.py", room / "answer.json"
    script.write_text(READERS[package], "utf-8")
    quiet = {
        "HF_HUB_OFFLINE": "1",
        "AXOLOTL_DO_NOT_TRACK": "1",
        "DISABLE_VERSION_CHECK": "1",
        "CUDA_VISIBLE_DEVICES": "",
    }
    kept = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    places = {"HF_DATASETS_CACHE": str(room / "datasets")}
    done = subprocess.run(
        [python, script, answer], cwd=export, env=kept | quiet | places, capture_output=True, text=True, check=False
    )
    if done.returncode:
        return {"error": done.stderr.strip().splitlines()[-1]}
    return json.loads(answer.read_text())


def alike(rows: list[list[list[int]]], run: ap.plans.Run) -> dict[str, float]:
    """Return the shares of rows, (ids, labels) each, whose ids, and whose labels too, are those of the run's."""
    data = load_data(parse_recipe(ap.read_run(run.path).recipe))
    known = {}
    for task in data.tasks.tasks:
        for i in range(len(task.train)):
            ids, labels = task.train.example(i)
            known[tuple(ids.tolist())] = tuple(labels.tolist()[1:])  # nothing predicts the first token
    same = [(tuple(ids) in known, known.get(tuple(ids)) == tuple(labels[1:])) for ids, labels in rows]
    return {"ids": sum(ids for ids, _ in same) / len(same), "labels": sum(labels for _, labels in same) / len(same)}


def declared(checkout: Path) -> set[str]:
    """Return the keys that Open Instruct's finetune.py takes, read from its source."""
    wanted = {"finetune.py": "FlatArguments", "dataset_transformation.py": "TokenizerConfig"}
    found: set[str] = set()
    for file, name in wanted.items():
        tree = ast.parse((checkout / "open_instruct" / file).read_text("utf-8"))
        body = next(node.body for node in tree.body if isinstance(node, ast.ClassDef) and node.name == name)
        found |= {
            node.target.id for node in body if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
        }
    return found


def checked(trainers: list[str], checkout: Path | None) -> Iterator[dict[str, Any]]:
    """Yield a result for each trainer and kind of rows."""
    with tempfile.TemporaryDirectory() as where:
        room = Path(where)
        os.environ.setdefault("APPORTION_CACHE", str(room / "cache"))
        runs = dict(cases(room / "runs"))
        drawn = {
            kind: sum(task["examples"] for task in ap.read_run(run.path).mixture["tasks"].values())
            for kind, run in runs.items()
        }
        for trainer in trainers:
            package = FOLDERS[trainer]
            python, version = environment(package, room / package)
            for kind, run in runs.items():
                export = ap.export(run, trainer, room / "exports" / trainer / kind).path
                found = read(package, python, export, room)
                result = {"trainer": trainer, "version": version, "kind": kind}
                if "error" in found:
                    yield result | {"error": found["error"]}
                    continue
                rows = found.pop("rows")
                yield result | found | {"rows": len(rows) / drawn[kind]} | alike(rows, run)
        if checkout is not None:
            known = declared(checkout)
            for kind in ("pairs", "chats"):
                export = ap.export(runs[kind], "open-instruct", room / "exports" / "open-instruct" / kind).path
                config = yaml.safe_load((export / "sft.yaml").read_text("utf-8"))
                yield {"trainer": "open-instruct", "version": "", "kind": kind, "unknown": sorted(set(config) - known)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=",".join(FOLDERS), help="trainers, by comma")
    parser.add_argument("--open-instruct", type=Path, help="a checkout of Open Instruct")
    parser.add_argument("--json", action="store_true", help="one line of JSON a result")
    asked = parser.parse_args()
    failed = False
    for result in checked([name for name in asked.only.split(",") if name], asked.open_instruct):
        failed |= "error" in result or bool(result["unknown"])
        if asked.json:
            print(json.dumps(result), flush=True)
            continue
        said = {key: f"{value:.3f}" if isinstance(value, float) else value for key, value in result.items()}
        print("  ".join(f"{key} {value}" for key, value in said.items()), flush=True)
    sys.exit(failed)


if __name__ == "__main__":
    main()
