"""LLaMA-Factory: ``llamafactory-cli train train.yaml``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, ClassVar

from apportion._yaml import dump_yaml
from apportion.exports._exporter import Exporter, Handed, Kind, Shape, Written
from apportion.exports.lora import whole_alpha

_FORMATS: Mapping[Shape, dict[str, Any]] = {
    "text": {"columns": {"prompt": "text"}},
    "pairs": {"columns": {"prompt": "prompt", "response": "completion"}},
    "messages": {
        "formatting": "sharegpt",
        "columns": {"messages": "messages"},
        "tags": {
            "role_tag": "role",
            "content_tag": "content",
            "user_tag": "user",
            "assistant_tag": "assistant",
            "system_tag": "system",
        },
    },
}


class LlamaFactory(Exporter):
    """LLaMA-Factory's config and its table of data sets, where ``num_samples`` says how often each is drawn.

    Its ``interleave_probs`` would end with the first data set that is used up, or go on until the last one is; a number of
    samples, which may be more than there are rows, is what the run drew.

    Source: LLaMA-Factory 0.9.5, its arguments and the loading of ``dataset_info.json``.
    """

    title: ClassVar[str] = "LLaMA-Factory"
    shapes: ClassVar[Mapping[Kind, Shape]] = {
        "text": "text",
        "pairs": "pairs",
        "answers": "messages",
        "chats": "messages",
    }
    ends: ClassVar[bool] = True

    def write(self, handed: Handed) -> Written:
        """Return ``train.yaml`` and ``data/dataset_info.json``."""
        info = {
            task.stem: {
                "file_name": task.file.removeprefix("data/"),
                "num_samples": task.draws,
                **_FORMATS[task.shape],
            }
            for task in handed.tasks
        }
        settings = dict(handed.training)
        settings["warmup_ratio"] = settings.pop("warmup_steps")
        config: dict[str, Any] = {
            "stage": "pt" if handed.shape == "text" else "sft",
            "do_train": True,
            "model_name_or_path": handed.model,
            "finetuning_type": "full" if handed.lora is None else "lora",
            "dataset_dir": "data",
            "dataset": ",".join(info),
            "mix_strategy": "concat",
            "cutoff_len": handed.max_length,
            **settings,
            "num_train_epochs": 1.0,
            "seed": handed.seed,
            "output_dir": "model",
            "report_to": "none",
        }
        notes = [
            "One epoch of this config is the run: 'num_samples' is how many rows of each task were drawn. What exceeds a "
            "task's rows is drawn at random with repetition, where the run went through all of them again."
        ]
        if handed.shape == "pairs":
            config["template"] = "empty"
            notes.append(
                "The template 'empty' adds nothing: prompts end with a newline and answers with the end token."
            )
        elif handed.shape == "messages":
            notes.append(
                "Without 'template', LLaMA-Factory reads the tokenizer's own chat template; name one if it fails. It trains "
                "on what a template writes after an answer's end marker too, such as a newline; the run did not."
            )
        if handed.shape == "text":
            config["packing"] = handed.packing  # which pretraining there has on unless it is said
        elif handed.packing:
            config["neat_packing"] = True
        if handed.attention is not None:
            config["flash_attn"] = {"flash_attention_2": "fa2", "sdpa": "sdpa", "eager": "disabled"}[handed.attention]
        if handed.lora is not None:
            targets = handed.lora["target_modules"]
            config |= {
                "lora_rank": handed.lora["r"],
                "lora_alpha": whole_alpha(handed.lora, notes),
                "lora_dropout": handed.lora["dropout"],
                "lora_target": "all" if isinstance(targets, str) else ",".join(targets),
            }
        files = {"train.yaml": dump_yaml(config), "data/dataset_info.json": json.dumps(info, indent=1) + "\n"}
        return Written(files, "llamafactory-cli train train.yaml", tuple(notes))
