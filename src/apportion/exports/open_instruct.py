"""Open Instruct: ``finetune.py sft.yaml``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from apportion._yaml import dump_yaml
from apportion.exports._exporter import Exporter, Handed, Kind, Shape, Written

_NAMES = {
    "learning_rate": "learning_rate",
    "lr_scheduler_type": "lr_scheduler_type",
    "warmup_steps": "warmup_ratio",
    "per_device_train_batch_size": "per_device_train_batch_size",
    "gradient_accumulation_steps": "gradient_accumulation_steps",
    "weight_decay": "weight_decay",
    "max_grad_norm": "clip_grad_norm",
    "gradient_checkpointing": "gradient_checkpointing",
}
_LORA_LAYERS = "q_proj, o_proj, v_proj, k_proj, gate_proj, up_proj and down_proj"


class OpenInstruct(Exporter):
    """The config of Open Instruct's ``finetune.py``, whose ``dataset_mixer_list`` counts the rows of each file.

    Source: allenai/open-instruct at e6c3044, ``FlatArguments``, ``TokenizerConfig`` and ``load_dataset_configs``.
    """

    title: ClassVar[str] = "Open Instruct"
    shapes: ClassVar[Mapping[Kind, Shape]] = {"pairs": "messages", "answers": "messages", "chats": "messages"}

    def write(self, handed: Handed) -> Written:
        """Return ``sft.yaml``."""
        config: dict[str, Any] = {
            "model_name_or_path": handed.model,
            "tokenizer_name_or_path": handed.model,
            # A whole number, as text, counts rows; with a decimal point it would be a share of them.
            "dataset_mixer_list": [part for task in handed.tasks for part in (task.file, str(task.draws))],
            "dataset_mixer_list_splits": ["train"],
            "max_seq_length": handed.max_length,
            **{_NAMES[name]: value for name, value in handed.training.items() if name in _NAMES},
            "num_train_epochs": 1,
            "seed": handed.seed,
            "output_dir": "model",
            "do_not_randomize_output_dir": True,
            "push_to_hub": False,
            "try_launch_beaker_eval_jobs": False,
        }
        notes = ["One epoch of this config is the run: 'dataset_mixer_list' says how many rows of each file are drawn."]
        if not handed.templated:
            config["chat_template_name"] = "simple_concat_with_new_line"
            notes.append("The model has no chat template: turns are joined by a newline, as in the run.")
        lost = [name for name in handed.training if name not in _NAMES and name in handed.given]
        if lost:
            notes.append(f"It has no setting for {', '.join(lost)}.")
        if handed.packing:
            config["packing"] = True
            notes.append("It keeps packed rows apart only under flash attention; the run always did.")
        if handed.lora is not None:
            config |= {
                "use_lora": True,
                "lora_rank": handed.lora["r"],
                "lora_alpha": handed.lora["alpha"],
                "lora_dropout": handed.lora["dropout"],
            }
            notes.append(
                f"Its LoRA is always of {_LORA_LAYERS}; the run's was of {_said(handed.lora['target_modules'])}."
            )
        command = "accelerate launch open_instruct/finetune.py sft.yaml"
        return Written({"sft.yaml": dump_yaml(config)}, command, tuple(notes))


def _said(targets: str | list[str]) -> str:
    return targets if isinstance(targets, str) else ", ".join(targets)
