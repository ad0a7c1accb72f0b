"""The section `train`."""

from typing import Literal

from pydantic import Field

from vae_core.schema.section import EXECUTION_ONLY, Section


class TrainConfig(Section):
    """How long and on what."""

    epochs: int = Field(10, ge=1, description="passes over the training split")
    effective_batch: int = Field(64, ge=1, description="images per optimizer step")
    amp: Literal["off", "bf16", "fp16"] = Field("off", description="autocast type of the network's forward pass")
    early_stopping_patience: int | None = Field(
        None, ge=1, description="stop after this many evaluations without a better evaluate.select"
    )
    threads: int = Field(1, ge=1, description="CPU threads; part of the identity, for other counts give other bits")
    pixel_budget: int = Field(
        2**21,
        ge=1,
        description="px of padded images per micro-batch; larger steps are accumulated",
        json_schema_extra=EXECUTION_ONLY,
    )
    device: Literal["auto", "cpu", "cuda"] = Field(
        "auto", description="auto takes CUDA where it is present", json_schema_extra=EXECUTION_ONLY
    )
    checkpoint_minutes: float = Field(
        5.0,
        gt=0,
        description="minutes; a checkpoint is also written within an epoch that lasts longer",
        json_schema_extra=EXECUTION_ONLY,
    )
    figures_every: int = Field(
        5,
        ge=1,
        description="epochs between figures; the last epoch always has them",
        json_schema_extra=EXECUTION_ONLY,
    )
