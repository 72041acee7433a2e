"""TAGI as a kind of model: its settings in a recipe's ``kind`` block, and what they ask of the rest."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field, model_validator

from apportion._config import Config
from apportion._errors import ApportionError
from apportion.models._kind import Asked, Child, ModelKind

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedTokenizerBase

    from apportion.budget.prices import Prices
    from apportion.tasks import EncodedCollection


class TeachersSpec(Config):
    """LoRA teachers, trained before within the same run and charged to `proxy`: whose Delta W the generated ones aim at.

    Args:
        run: Folder of a run whose teachers serve again, charged as if trained; left out, they are trained.
        budget: Each teacher's, as a recipe's ``budget``: a share is of its own tasks' tokens.
        learning_rate: Of the teachers.
        groups: Each task's category, one teacher for each; left out, each task has its own.
    """

    run: str | None = None
    budget: str | int | float = "100%"
    learning_rate: float = Field(1e-3, gt=0)
    groups: dict[str, str] | None = None


class Tagi(ModelKind):
    """A hypernetwork that reads a task's instruction and gives the base model a LoRA adapter for it.

    Args:
        stage: ``finetune`` on tasks with instructions, or ``pretrain`` on plain text cut in instruction, input and target.
        start: Folder of a finished run to start from, such as one of the stage ``pretrain``.
        head: The generator: ``shared_index`` and ``per_layer`` (TAGI's two readings), ``module_depth`` (Text-to-LoRA),
            ``diagonal`` (Zhyper), or ``none``, which leaves instructions to fusion and memory.
        modules: Last names of the linear layers that are adapted; left out, queries and values.
        r: Rank of the adapters.
        alpha: Their scale is alpha / r, as in PEFT.
        code: Width of a task's code.
        hidden: Width of the generator's hidden layer.
        fusion: Whether each layer that reads the input attends to the instruction's states too.
        memory: Whether an encoder-decoder's decoder sees the instruction's states before the input's.
        base: What of the base model is trained: nothing, its norms and embeddings (as TAGI's code does), or all.
        kl: lambda_1, the weight of the KL to the teacher's logits; 0 leaves the teacher out.
        temperature: Of that KL.
        standardise: Whether its logits are z-scored, as TAGI's code does.
        teacher: Who gives these logits, reading instruction and input as one text: ``self``, the base model without an
            adapter, or the folder of a model or adapter.
        teachers: LoRA teachers to align with; None leaves the alignment out.
        alignment: ``delta_w``, or ``factors`` as the paper has it.
        ins: lambda_2, the alignment's weight: a number, or ``sigmoid`` of the alignment loss itself.
    """

    gives: ClassVar[frozenset[str]] = frozenset({"losses", "gradients", "steps", "texts"})
    timed: ClassVar[bool] = False
    selects: ClassVar[bool] = False

    stage: Literal["finetune", "pretrain"] = "finetune"
    start: str | None = None
    head: Literal["shared_index", "per_layer", "module_depth", "diagonal", "none"] = "per_layer"
    modules: list[str] | None = Field(None, min_length=1)
    r: int = Field(8, ge=1)
    alpha: float = Field(16.0, gt=0)
    code: int = Field(64, ge=1)
    hidden: int = Field(64, ge=1)
    fusion: bool = False
    memory: bool = False
    base: Literal["frozen", "norms_and_embeddings", "all"] = "frozen"
    kl: float = Field(5.0, ge=0)
    temperature: float = Field(1.0, gt=0)
    standardise: bool = False
    teacher: str = "self"
    teachers: TeachersSpec | None = None
    alignment: Literal["delta_w", "factors"] = "delta_w"
    ins: float | Literal["sigmoid"] = "sigmoid"

    @model_validator(mode="after")
    def _together(self) -> Tagi:
        if self.stage == "pretrain" and self.teachers is not None:
            raise ValueError("plain text has no tasks to have 'teachers' for: leave them out of stage pretrain")
        if self.head == "none" and not (self.fusion or self.memory):
            raise ValueError("'head: none' leaves nothing that reads instructions: set 'fusion' or 'memory'")
        if self.head == "none" and self.teachers is not None:
            raise ValueError("'head: none' writes no adapters that 'teachers' could be compared with")
        if isinstance(self.ins, float) and self.ins < 0:
            raise ValueError("'ins' is a weight of at least 0, or sigmoid")
        return self

    @property
    def frozen(self) -> bool:
        """Whether the base model stays as it is, so that an instruction needs reading only once."""
        return self.base == "frozen"

    @property
    def distils(self) -> bool:
        """Whether a teacher's logits are asked for."""
        return self.kl > 0 and self.stage == "finetune"

    @property
    def scale(self) -> float:
        """What A B is multiplied by."""
        return self.alpha / self.r

    def modules_of(self, config: Any) -> list[str]:  # noqa: ANN401
        """Return the last names of the layers to adapt in a model of this config."""
        return self.modules or (["q", "v"] if config.is_encoder_decoder else ["q_proj", "v_proj"])

    def refusal(self, key: str, instead: str = "") -> ApportionError:
        """Return the error of a recipe's ``key`` that does not go with adapters that belong to tasks."""
        return ApportionError(f"{key} does not go with 'kind: tagi', whose adapters belong to tasks{instead}.")

    def check(self, asked: Asked) -> None:
        """Refuse a recipe whose other blocks do not go with a hypernetwork.

        Raises:
            ApportionError: As said.
        """
        apart = (asked.tasks.model_extra or {}).get("instruction") == "apart"
        if (self.stage == "finetune") != apart:
            raise ApportionError(
                "A hypernetwork reads instructions that stand apart from the prompts: set 'tasks.instruction: apart'."
                if self.stage == "finetune"
                else "'kind.stage: pretrain' cuts its instructions out of plain text: leave out 'tasks.instruction'."
            )
        for key, given in (("lora", asked.lora is not None), ("packing", asked.packing)):
            if given:
                raise self.refusal(f"'{key}'")
        if asked.targets is not None and asked.targets.tasks is None:
            raise self.refusal("'targets' with data of its own", "; name tasks under 'targets.tasks'")
        for key in ("gradient_checkpointing", "neftune_noise_alpha", "activation_checkpointing"):
            if asked.training.get(key) not in (None, False):
                raise self.refusal(f"'training.{key}'")
        self._check_base(asked)

    def _check_base(self, asked: Asked) -> None:
        scratch, own_teacher = asked.model.config is not None, self.distils and self.teacher == "self"
        if self.base != "all" and scratch:
            also = " and 'kind.kl: 0', for it cannot be its own teacher" if own_teacher else ""
            raise ApportionError(
                f"A base model from scratch has to be trained along: set 'kind.base: all'{also}; or give the 'model.name' "
                "of one that is trained."
            )
        if self.teachers is not None and scratch:
            raise ApportionError(
                "LoRA teachers need a base model that is trained: give 'model.name', or leave out 'kind.teachers'."
            )
        if own_teacher and self.base == "all":
            raise ApportionError(
                "A base model that is itself trained cannot be its own teacher: name another under 'kind.teacher', or set "
                "'kind.kl: 0'."
            )

    def encode(self, tasks: EncodedCollection) -> EncodedCollection:
        """Return plain texts cut for pretraining, where that is the stage."""
        from apportion.models.tagi.cutting import cut_texts

        return cut_texts(tasks) if self.stage == "pretrain" else tasks

    def build(
        self,
        asked: Asked,
        tasks: EncodedCollection,
        tokenizer: PreTrainedTokenizerBase,
        *,
        meta: bool = False,
    ) -> nn.Module:
        """Build or load base model, hypernetwork and teacher; arguments and errors are `ModelKind.build`'s."""
        from apportion.models.tagi.building import build

        return build(self, asked, tasks, tokenizer, meta=meta)

    def prices(self, model: nn.Module) -> Prices:
        """Measure what the model's passes cost."""
        from apportion.models.tagi.prices import TagiPrices

        return TagiPrices.of(model)  # type: ignore[arg-type]

    def children(self, asked: Asked, names: tuple[str, ...], out: Path) -> tuple[Child, ...]:
        """Return the LoRA teachers, one a task or category.

        Raises:
            ApportionError: ``teachers.run`` has not all of them, or categories name no task.
        """
        from apportion.models.tagi.teachers import teachers_of

        return () if self.teachers is None else teachers_of(self, self.teachers, asked, names, out)

    def prepare(self, model: nn.Module, children: Sequence[Child], names: tuple[str, ...]) -> None:
        """Set the teachers' adapters as what the generated ones aim at, and read all instructions ahead."""
        from apportion.models.tagi.teachers import aim

        aim(model, children, names)  # type: ignore[arg-type]

    def save_beside(self, model: nn.Module, asked: Asked, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
        """Save base model and tokenizer where the base may not be the named one, unchanged."""
        from apportion.models.tagi.building import save_base

        save_base(model, tokenizer, asked, folder)  # type: ignore[arg-type]

    def loading(self, asked: Asked) -> tuple[str, str]:
        """Return the command that has the hypernetwork write an adapter."""
        return "apportion", (
            "# RUN is the folder of the run, which this model's lies in.\n"
            'apportion hypernet adapter RUN --instruction "what the task asks for" --out adapter'
        )
