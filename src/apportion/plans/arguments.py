"""The recipe's ``training`` block: Hugging Face's arguments by their own names, each checked before anything is written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_type_hints

import torch
from pydantic import Field, create_model
from torch.utils.checkpoint import checkpoint
from transformers import SchedulerType, Trainer, TrainingArguments
from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK, get_available_reporting_integrations
from transformers.training_args import OptimizerNames

from apportion._config import Config, validate
from apportion._errors import ApportionError, nearest
from apportion.training.schedule import budget_schedule

Arguments = TypeVar("Arguments", bound=TrainingArguments)

# The budget, the run folder and the seed decide these.
OWNED = {
    "output_dir": "the run folder is given with --out",
    "max_steps": "training ends when 'budget' is spent",
    "num_train_epochs": "training ends when 'budget' is spent",
    "seed": "it stands at the top of the recipe",
    "data_seed": "'seed' at the top of the recipe decides it",
    "train_sampling_strategy": "'mixture' decides what is drawn",
    "ignore_data_skip": "a resumed run goes on with its own draws",
    "remove_unused_columns": "the batches hold what the model takes",
    "resume_from_checkpoint": "a run goes on by itself where its folder was left unfinished",
    "auto_find_batch_size": "a step that is tried twice would be charged twice",
    "label_smoothing_factor": "the loss is the plain cross-entropy, so that methods compare",
    "eval_strategy": "'validation.every' decides it",
    "eval_steps": "'validation.every' decides it",
    "save_strategy": "a checkpoint follows every validation",
    "save_steps": "a checkpoint follows every validation",
    "load_best_model_at_end": "the last model is the run's",
    "push_to_hub": "upload the run's folder 'model' when it is finished",
    "logging_strategy": "every hundredth of the budget is recorded",
    "logging_steps": "every hundredth of the budget is recorded",
    "fp16": "use bf16",
    "accelerator_config": "a step's loss is the mean over its examples, always",
    "average_tokens_across_devices": "a step's loss is the mean over its examples, always",
    "include_num_input_tokens_seen": "the ledger counts every token, by kind and account",
    "eval_on_start": "a validation opens every run",
}
# And these, by what they are about: the reason, and the keys.
_OWNED_TOGETHER = {
    "fused layers hide what methods read from the backward pass": (
        "use_liger_kernel liger_kernel_config torch_compile torch_compile_backend torch_compile_mode"
    ),
    "each process holds the whole model": "fsdp fsdp_config deepspeed parallelism_config",
    "the block 'validation' decides how losses are measured": (
        "eval_delay eval_accumulation_steps eval_do_concat_batches eval_use_gather_object prediction_loss_only "
        "batch_eval_metrics include_for_metrics label_names length_column_name metric_for_best_model greater_is_better "
        "bf16_full_eval fp16_full_eval"
    ),
    "batches are drawn step by step from encoded data, without a loader": (
        "dataloader_drop_last dataloader_num_workers dataloader_pin_memory dataloader_persistent_workers "
        "dataloader_prefetch_factor dataloader_multiprocessing_context dataloader_in_order"
    ),
    "the newest two checkpoints are kept whole, so that a stopped run goes on": (
        "save_only_model save_total_limit save_on_each_node enable_jit_checkpoint restore_callback_states_from_checkpoint"
    ),
    "upload the run's folder 'model' when it is finished": (
        "hub_token hub_private_repo hub_model_id hub_strategy hub_always_push hub_revision"
    ),
    "progress and history are Apportion's own": (
        "log_level log_level_replica log_on_each_node logging_first_step logging_nan_inf_filter disable_tqdm"
    ),
    "the command says what is done": "do_train do_eval do_predict",
}
OWNED |= {key: reason for reason, keys in _OWNED_TOGETHER.items() for key in keys.split()}

_POSITIVE, _NOT_NEGATIVE, _BETA = Field(ge=1), Field(ge=0), Field(ge=0, lt=1)
_RANGES = {
    "per_device_train_batch_size": _POSITIVE,
    "per_device_eval_batch_size": _POSITIVE,
    "gradient_accumulation_steps": _POSITIVE,
    "learning_rate": Field(gt=0),
    "weight_decay": _NOT_NEGATIVE,
    "warmup_steps": _NOT_NEGATIVE,
    "max_grad_norm": _NOT_NEGATIVE,
    "adam_beta1": _BETA,
    "adam_beta2": _BETA,
}
# These are built from the model's layers, which only Trainer has at hand: of them the package is looked for here.
_BY_LAYER = {"galore": "galore_torch", "apollo": "apollo_torch"}
_WHILE_BACKWARD = ("lomo", "adalomo", "layerwise")
# These need a validation metric.
_BY_METRIC = (SchedulerType.REDUCE_ON_PLATEAU.value, "greedy")


def checked(block: Mapping[str, Any]) -> dict[str, Any]:
    """Return the block with each value of the kind that Hugging Face wants.

    Raises:
        ApportionError: Unknown key (with the nearest), one that Apportion decides, or a value of the wrong kind.
    """
    for key in block:
        if key in OWNED:
            raise ApportionError(f"'training.{key}' cannot be set here: {OWNED[key]}.")
    values = validate(_block(), block, "training").model_dump(exclude_unset=True)
    schedules = [name.value for name in SchedulerType if name.value not in _BY_METRIC]
    for key, known in (("optim", [name.value for name in OptimizerNames]), ("lr_scheduler_type", schedules)):
        if key in values and values[key] not in known:
            raise ApportionError(f"'training.{key}' cannot be '{values[key]}' here{nearest(values[key], known)}.")
    _check_optimizer(values.get("optim", ""), values.get("optim_target_modules"))
    _check_reporting(values.get("report_to"))
    return values


def training_arguments(block: Mapping[str, Any], seed: int, output: Path, kind: type[Arguments]) -> Arguments:
    """Return Hugging Face's arguments, with what the budget decides set.

    Args:
        block: A checked ``training`` block.
        seed: Of the recipe.
        output: The run folder.
        kind: Theirs (``TrainingArguments``), or those of a trainer that has more.

    Raises:
        ApportionError: Values that do not go together, or an optimizer or schedule that cannot be built from them.
    """
    settings: dict[str, Any] = {
        "report_to": "none",
        "run_name": "/".join(output.parts[-2:]),  # what trackers call it: of a comparison, arm and seed
        "logging_nan_inf_filter": False,
        # bf16 on a CPU has to be asked for by name; on an accelerator this changes nothing.
        "use_cpu": not torch.accelerator.is_available(),
        # A causal language model uses every parameter in every step; looking for others would cost a pass over the graph.
        "ddp_find_unused_parameters": False,
        **block,
        "remove_unused_columns": False,
        "ignore_data_skip": True,
        "output_dir": str(output),
        "seed": seed,
        "disable_tqdm": True,
        "eval_strategy": "no",
        "save_strategy": "no",
        "logging_strategy": "no",
        "max_steps": 10**9,
    }
    try:
        args = kind(**settings)
        if args.activation_checkpointing:
            _try_checkpointing(args.activation_checkpointing_kwargs or {})
        if not args.optim.value.startswith(tuple(_BY_LAYER)):
            make, options = Trainer.get_optimizer_cls_and_kwargs(args)
            budget_schedule(args, make([torch.zeros(1, requires_grad=True)], **options), lambda: 0.0)
    except (ValueError, TypeError, ImportError, RuntimeError) as error:
        raise ApportionError(f"'training' is not accepted: {_first_line(error)}") from None
    return args


@cache
def _block() -> type[Config]:
    hints = get_type_hints(TrainingArguments)
    names = [field.name for field in fields(TrainingArguments) if field.init and field.name not in OWNED]
    kinds: dict[str, Any] = {
        name: (Annotated[hints[name], _RANGES[name]] if name in _RANGES else hints[name], None) for name in names
    }
    return create_model("TrainingBlock", __base__=Config, **kinds)


def _check_optimizer(name: str, targets: object) -> None:
    if name.startswith(_WHILE_BACKWARD) or name.endswith(_WHILE_BACKWARD):
        raise ApportionError(
            f"'training.optim' cannot be '{name}' here: it updates layer by layer during the backward pass, before the "
            "step's gradient is whole."
        )
    package = next((package for prefix, package in _BY_LAYER.items() if name.startswith(prefix)), None)
    if package is None:
        return
    if find_spec(package) is None:
        raise ApportionError(f"'training.optim' is '{name}', which needs the package {package}: install it first.")
    if targets is None:
        raise ApportionError(
            f"'training.optim' is '{name}', which needs 'training.optim_target_modules': name the layers, or 'all-linear'."
        )


def _try_checkpointing(options: Mapping[str, Any]) -> None:
    # Methods ask for gradients with `torch.autograd.grad`, as here; the reentrant kind refuses that, in the middle of a run.
    weight = torch.zeros(1, requires_grad=True)
    torch.autograd.grad(checkpoint(torch.square, weight, **{"use_reentrant": False, **options}), weight)


def _check_reporting(report_to: str | list[str] | None) -> None:
    for name in [report_to] if isinstance(report_to, str) else report_to or []:
        if name in ("none", "all"):
            continue
        if name not in INTEGRATION_TO_CALLBACK:
            raise ApportionError(
                f"Unknown tracker '{name}' in 'training.report_to'{nearest(name, INTEGRATION_TO_CALLBACK)}."
            )
        if name not in get_available_reporting_integrations():
            raise ApportionError(f"'training.report_to' names '{name}', which is not installed: pip install {name}.")


def _first_line(error: Exception) -> str:
    line = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return line if line.endswith(".") else line + "."
