"""Axolotl: ``axolotl train axolotl.yaml``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from apportion._yaml import dump_yaml
from apportion.exports._exporter import Exporter, Handed, Kind, Shape, Written
from apportion.exports.lora import whole_alpha
from apportion.exports.passes import slices

# A prompt ends with what stands between it and its completion, so that nothing is left to a template.
_PAIRS = {
    "field_instruction": "prompt",
    "field_output": "completion",
    "format": "{instruction}",
    "no_input_format": "{instruction}",
}
_TYPES: Mapping[Shape, Any] = {"text": "completion", "pairs": _PAIRS, "messages": "chat_template"}
_NAMES = {
    "learning_rate": "learning_rate",
    "lr_scheduler_type": "lr_scheduler",
    "warmup_steps": "warmup_ratio",
    "per_device_train_batch_size": "micro_batch_size",
    "gradient_accumulation_steps": "gradient_accumulation_steps",
    "optim": "optimizer",
    "adam_beta1": "adam_beta1",
    "adam_beta2": "adam_beta2",
    "adam_epsilon": "adam_epsilon",
    "weight_decay": "weight_decay",
    "max_grad_norm": "max_grad_norm",
    "gradient_checkpointing": "gradient_checkpointing",
    "bf16": "bf16",
}


class Axolotl(Exporter):
    """Axolotl's config, with one entry of ``datasets`` for each pass over a task.

    Source: Axolotl 0.19, its config's schema and the loading of local files.
    """

    title: ClassVar[str] = "Axolotl"
    shapes: ClassVar[Mapping[Kind, Shape]] = {
        "text": "text",
        "pairs": "pairs",
        "answers": "messages",
        "chats": "messages",
    }
    together: ClassVar[bool] = True

    def write(self, handed: Handed) -> Written:
        """Return ``axolotl.yaml``."""
        config: dict[str, Any] = {
            "base_model": handed.model,
            "datasets": [
                {"path": task.file, "ds_type": "json", "split": part, "type": _TYPES[task.shape]}
                for task in handed.tasks
                for part in slices(task)
            ],
            "dataset_exact_deduplication": False,
            "val_set_size": 0.0,
            "shuffle_merged_datasets": True,
            "train_on_inputs": False,
            "sequence_len": handed.max_length,
            **{_NAMES[name]: value for name, value in handed.training.items()},
            "num_epochs": 1,
            "seed": handed.seed,
            "output_dir": "model",
            "dataset_prepared_path": "prepared",
        }
        if any(task.shape == "messages" for task in handed.tasks):
            config["chat_template"] = "tokenizer_default"
        if handed.attention is not None:
            config["attn_implementation"] = handed.attention
        notes = ["One epoch of this config is the run: its rows are listed as often as they were drawn."]
        if handed.packing:
            config["sample_packing"] = True
        if handed.training["bf16"] and handed.dtype == "float32":
            notes.append("Axolotl loads the weights in bf16 where bf16 is on; the run kept them in float32.")
        if handed.lora is not None:
            targets = handed.lora["target_modules"]
            every = isinstance(targets, str)
            config |= {
                "adapter": "lora",
                "lora_r": handed.lora["r"],
                "lora_alpha": whole_alpha(handed.lora, notes),
                "lora_dropout": handed.lora["dropout"],
                **({"lora_target_linear": True} if every else {"lora_target_modules": targets}),
            }
        return Written({"axolotl.yaml": dump_yaml(config)}, "axolotl train axolotl.yaml", tuple(notes))
