"""The recipe's ``hypernet`` block."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from apportion._config import Config


class TeachersSpec(Config):
    """LoRA teachers, trained first within the same run and charged to `proxy`: whose Delta W the generated ones aim at.

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


class HypernetSpec(Config):
    """A hypernetwork that reads a task's instruction and gives the base model a LoRA adapter for it.

    Args:
        type: The method.
        stage: ``finetune`` on tasks with instructions, or ``pretrain`` on plain text cut in instruction, input and target.
        start: Folder of a finished run to start from, such as one of the stage ``pretrain``.
        head: The generator: ``shared_index`` and ``per_layer`` (TAGI's two readings), ``module_depth`` (Text-to-LoRA),
            ``diagonal`` (Zhyper), or ``none``, which leaves instructions to fusion and memory.
        modules: Last names of the linear layers that are adapted; left out, queries and values.
        rank: r of the adapters.
        alpha: Their scale is alpha / rank, as in PEFT.
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

    type: Literal["tagi"] = "tagi"
    stage: Literal["finetune", "pretrain"] = "finetune"
    start: str | None = None
    head: Literal["shared_index", "per_layer", "module_depth", "diagonal", "none"] = "per_layer"
    modules: list[str] | None = Field(None, min_length=1)
    rank: int = Field(8, ge=1)
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
    def _together(self) -> HypernetSpec:
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
    def distils(self) -> bool:
        """Whether a teacher's logits are asked for."""
        return self.kl > 0 and self.stage == "finetune"

    @property
    def scale(self) -> float:
        """What A B is multiplied by."""
        return self.alpha / self.rank

    def modules_of(self, config: Any) -> list[str]:  # noqa: ANN401
        """Return the last names of the layers to adapt in a model of this config."""
        return self.modules or (["q", "v"] if config.is_encoder_decoder else ["q_proj", "v_proj"])
