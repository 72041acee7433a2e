"""TRL: ``trl sft --config sft.yaml``."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, ClassVar

from apportion._yaml import dump_yaml
from apportion.exports._exporter import Exporter, Handed, Kind, Shape, Written
from apportion.exports.lora import whole_alpha
from apportion.exports.passes import slices


class Trl(Exporter):
    """The config of TRL's supervised fine-tuning, with one entry of ``datasets`` for each pass over a task.

    TRL's own ``fraction`` caps the mixture so that nothing is seen twice; repeated entries do not.

    Source: TRL 1.16, ``DatasetMixtureConfig``, ``SFTConfig`` and ``ModelConfig``.
    """

    title: ClassVar[str] = "TRL"
    shapes: ClassVar[Mapping[Kind, Shape]] = {
        "text": "text",
        "pairs": "pairs",
        "answers": "asked",
        "chats": "messages",
    }

    def write(self, handed: Handed) -> Written:
        """Return ``sft.yaml``."""
        config: dict[str, Any] = {
            "model_name_or_path": handed.model,
            "dtype": handed.dtype,
            "datasets": [
                {"path": "json", "data_files": task.file, "split": part}
                for task in handed.tasks
                for part in slices(task)
            ],
            "max_length": handed.max_length,
            **handed.training,
            "num_train_epochs": 1,
            "shuffle_dataset": True,
            "seed": handed.seed,
            "output_dir": "model",
            "report_to": "none",
        }
        if handed.attention is not None:
            config["attn_implementation"] = handed.attention
        notes = ["One epoch of this config is the run: its rows are listed as often as they were drawn."]
        if handed.packing:
            config["packing"] = True
            notes.append("TRL keeps packed rows apart only under flash attention; the run always did.")
        if handed.shape == "messages":
            config["assistant_only_loss"] = True
            notes.append(
                "Training on every answer of a conversation needs a chat template that marks answers, or one that TRL "
                "knows; it says so where neither is the case."
            )
        if handed.shape == "text":
            notes.append(
                f"A text over {handed.max_length} tokens is cut off there. The run trained on all of it, in pieces: "
                "'packing: true' with 'packing_strategy: wrapped' comes nearest."
            )
        if handed.lora is not None:
            config |= {
                "use_peft": True,
                "lora_r": handed.lora["r"],
                "lora_alpha": whole_alpha(handed.lora, notes),
                "lora_dropout": handed.lora["dropout"],
                "lora_target_modules": _layers(handed.lora["target_modules"]),
            }
        return Written({"sft.yaml": dump_yaml(config)}, "trl sft --config sft.yaml", tuple(notes))


def _layers(targets: str | list[str]) -> list[str]:
    """Return the layers as TRL takes them: of a list of one it makes a text, which PEFT reads as a regular expression."""
    if isinstance(targets, str):
        return [targets]
    return [rf"(.*\.)?{re.escape(targets[0])}"] if len(targets) == 1 else targets
