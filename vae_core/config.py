"""The configuration of one training run: a single frozen tree, the only place where defaults and units are written.

A field marked `execution_only()` may differ between machines without changing what is learnt; every other field
is part of the run's identity (`identity`).
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic.fields import FieldInfo

from vae_core.errors import UserError, suggestion
from vae_core.yaml_io import load_yaml

_EXECUTION_ONLY: dict[str, JsonValue] = {"execution_only": True}
_UNION_TAGS = {"tuple", "values", "range"}  # pydantic names the branch of a union in an error's path


class _Section(BaseModel):
    """A frozen section that refuses unknown keys and silent conversions ("off" for False, "3" for 3)."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


Fraction = Annotated[float, Field(ge=0, lt=1)]


class DataConfig(_Section):
    """Which images, how they are brought to size, and how they are split."""

    source: Literal["synthetic", "trees", "folder", "fashion-mnist", "mnist"] = Field(
        "synthetic", description="where the images come from"
    )
    path: str | None = Field(
        None,
        description="folder of trees or images, or of the idx files of (Fashion-)MNIST; not part of the identity: "
        "the content's fingerprint is",
        json_schema_extra=_EXECUTION_ONLY,
    )
    labels: str | None = Field(
        None,
        description="CSV with columns name,label; default: the name of an image's subfolder",
        json_schema_extra=_EXECUTION_ONLY,
    )
    count: int = Field(600, ge=10, description="synthetic source only: number of images")
    synthetic_seed: int = Field(0, ge=0, description="synthetic source only: seed of the generator")
    channels: Literal[1, 3] = Field(1, description="1 gray, 3 RGB")
    width: int = Field(32, ge=8, le=8192, description="px; every image is scaled to this width, keeping its aspect")
    max_height: int = Field(
        4096, ge=8, le=65536, description="px at that width; a taller image is cropped to its middle"
    )
    trim: Literal["none", "content"] = Field(
        "none", description="trees only: content crops below the last element, none keeps the whole canvas"
    )
    pad_multiple: int | None = Field(
        None,
        ge=1,
        description="px; heights and widths are padded up to a multiple of this (and of the model's stride); "
        "default: the stride alone",
    )
    limit: int | None = Field(
        None, ge=10, description="use at most this many images, chosen by a hash of their content"
    )
    split_seed: int = Field(0, ge=0, description="seed of the train/val/test split, shared by every run of a study")
    val_fraction: Fraction = Field(0.15, gt=0, description="share of the images used for validation")
    test_fraction: Fraction = Field(
        0.15, gt=0, description="share used for test; sources with a test set of their own keep that one"
    )
    near_duplicate_tolerance: float = Field(
        0.01,
        ge=0,
        le=1,
        description="images whose 8x8 thumbnails differ by at most this (mean absolute, of 1) and whose aspects are "
        "within 2% stay in one split",
    )
    max_skipped: int = Field(
        50, ge=0, description="unreadable or oversized images tolerated before the data set is refused"
    )
    max_pixels: int = Field(50_000_000, ge=64, description="px; a larger image is skipped and counted")
    cache_dir: str | None = Field(
        None,
        description="where prepared data sets are kept; default: $VAE_SWEEP_CACHE or ~/.cache/vae-sweep",
        json_schema_extra=_EXECUTION_ONLY,
    )

    @model_validator(mode="after")
    def _leave_images_to_train_on(self) -> "DataConfig":
        if self.val_fraction + self.test_fraction >= 0.9:
            raise ValueError("val_fraction + test_fraction must leave at least a tenth of the images to train on")
        return self


class ModelConfig(_Section):
    """The VAE: convolutional encoder, spatial pyramid, Gaussian latent, upsampling decoder."""

    latent_dim: int = Field(16, ge=1, le=4096, description="number of latent dimensions")
    block: str = Field("resnet", description="a block registered in vae_core/models/blocks.py")
    encoder_widths: tuple[Annotated[int, Field(ge=1)], ...] = Field(
        (16, 32, 64),
        strict=False,
        min_length=1,
        description="channels after the stem and after each block; every block halves the size",
    )
    stem_kernel: Annotated[int, Field(ge=1, le=15)] = Field(7, description="px; size of the first convolution, odd")
    stem_pool: bool = Field(False, description="a 3x3 max-pooling after the stem that halves the size once more")
    decoder_widths: tuple[Annotated[int, Field(ge=1)], ...] = Field(
        (64, 32, 16),
        strict=False,
        min_length=1,
        description="channels of the decoder's grid and after each of its upsampling blocks",
    )
    decoder_grid: tuple[Annotated[int, Field(ge=1)], Annotated[int, Field(ge=1)]] = Field(
        (4, 4), strict=False, description="rows and columns of the grid that the latent is projected to"
    )
    decoder_size: Literal["input", "fixed"] = Field(
        "input",
        description="input: the grid is stretched to the image's aspect before the first block, fixed: the decoder "
        "draws at its own size and its output is stretched",
    )
    spp_levels: tuple[Annotated[int, Field(ge=1)], ...] = Field(
        (1, 2, 4),
        strict=False,
        min_length=1,
        description="rows (and columns) of each level of the spatial pyramid",
    )
    cbam: bool = Field(True, description="channel and spatial attention before each residual sum")
    cbam_reduction: int = Field(16, ge=1, description="channel attention's bottleneck divides the channels by this")
    norm_groups: int = Field(
        32, ge=1, description="groups of GroupNorm; lowered to the nearest divisor of a layer's channels"
    )
    logvar_bound: float = Field(10.0, gt=0, description="nats; |log variance| is softly kept below this")

    @field_validator("block")
    @classmethod
    def _registered_block(cls, block: str) -> str:
        from vae_core.models.blocks import BLOCKS  # needs torch, which reading a config otherwise does not

        if block not in BLOCKS:
            raise ValueError(f"no such block; {suggestion(block, BLOCKS)}")
        return block

    @field_validator("stem_kernel")
    @classmethod
    def _odd_kernel(cls, kernel: int) -> int:
        if kernel % 2 == 0:
            raise ValueError("must be odd, so that sizes halve exactly")
        return kernel

    @property
    def stride(self) -> int:
        """Return how many input pixels one pixel of the encoder's last feature map stands for."""
        return 1 << (len(self.encoder_widths) + int(self.stem_pool))


class LossConfig(_Section):
    """`total = reconstruction + beta * kl`, both in nats per image."""

    reconstruction: Literal["gaussian", "laplace", "bernoulli"] = Field(
        "gaussian", description="likelihood of the training objective: gaussian is MSE, laplace is L1"
    )
    sigma: float = Field(
        1.0,
        gt=0,
        description="pixel units (0 to 1); standard deviation of the Gaussian, b of the Laplace; unused by bernoulli",
    )
    beta: float = Field(1.0, ge=0, description="coefficient of the KL term; 1 is the ELBO")
    beta_schedule: str = Field("constant", description="a schedule registered in vae_core/schedules.py")
    warmup_epochs: float = Field(0.0, ge=0, description="epochs over which a linear schedule rises from 0 to beta")

    @field_validator("beta_schedule")
    @classmethod
    def _registered_schedule(cls, schedule: str) -> str:
        from vae_core.schedules import SCHEDULES

        if schedule not in SCHEDULES:
            raise ValueError(f"no such schedule; {suggestion(schedule, SCHEDULES)}")
        return schedule


class OptimConfig(_Section):
    """The optimizer and its learning rate."""

    algorithm: Literal["adam", "adamw"] = Field("adam", description="optimizer")
    lr: float = Field(1e-3, gt=0, description="learning rate")
    weight_decay: float = Field(0.0, ge=0, description="L2 penalty (adam) or decoupled decay (adamw)")
    clip_norm: float | None = Field(None, gt=0, description="gradients are scaled down to this global norm")
    lr_schedule: Literal["constant", "plateau"] = Field(
        "constant", description="plateau multiplies lr by plateau_factor when evaluate.select stops improving"
    )
    plateau_factor: float = Field(0.5, gt=0, lt=1, description="factor of the plateau schedule")
    plateau_patience: int = Field(5, ge=1, description="evaluations without improvement before lr falls")
    min_lr: float = Field(1e-5, ge=0, description="floor of the plateau schedule")


class TrainConfig(_Section):
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
        json_schema_extra=_EXECUTION_ONLY,
    )
    device: Literal["auto", "cpu", "cuda"] = Field(
        "auto", description="auto takes CUDA where it is present", json_schema_extra=_EXECUTION_ONLY
    )
    checkpoint_minutes: float = Field(
        5.0,
        gt=0,
        description="minutes; a checkpoint is also written within an epoch that lasts longer",
        json_schema_extra=_EXECUTION_ONLY,
    )
    figures_every: int = Field(
        5,
        ge=1,
        description="epochs between figures; the last epoch always has them",
        json_schema_extra=_EXECUTION_ONLY,
    )


class EvaluateConfig(_Section):
    """How models are measured; the same for every cell of a study."""

    likelihood: Literal["gaussian", "laplace", "bernoulli"] = Field(
        "gaussian",
        description="likelihood of val/elbo and test/elbo; gaussian and laplace fit one scale on training "
        "reconstructions",
    )
    every_epochs: int = Field(1, ge=1, description="epochs between evaluations; the last epoch always has one")
    scale_images: int = Field(256, ge=1, description="training images on which the likelihood's scale is fitted")
    lpips: Literal["auto", "off", "required"] = Field(
        "auto",
        description="auto measures LPIPS where the SqueezeNet weights are found and tags the run otherwise",
    )
    select: Literal["val/elbo", "val/ssim", "val/mse", "val/lpips", "val/objective"] = Field(
        "val/elbo", description="metric that chooses the checkpoint whose test metrics are reported"
    )

    @model_validator(mode="after")
    def _selected_metric_is_measured(self) -> "EvaluateConfig":
        if self.select == "val/lpips" and self.lpips != "required":
            raise ValueError("select: val/lpips needs lpips: required, so that every run has the metric")
        return self


class RunConfig(_Section):
    """Everything that determines one training run."""

    data: DataConfig = Field(default_factory=DataConfig)
    model: ModelConfig = Field(default_factory=ModelConfig)
    loss: LossConfig = Field(default_factory=LossConfig)
    optim: OptimConfig = Field(default_factory=OptimConfig)
    train: TrainConfig = Field(default_factory=TrainConfig)
    evaluate: EvaluateConfig = Field(default_factory=EvaluateConfig)
    seed: int = Field(0, ge=0, description="seed of the initial weights, the data order and the latent noise")


def parse_config(tree: Any, where: str) -> RunConfig:
    """Check a nested mapping and return the frozen config.

    Args:
        tree: the mapping, as read from YAML.
        where: the file (or option) it came from, for messages.

    Raises:
        UserError: every mistake at once, each with its dotted path, the rule, the value and what is valid.
    """
    if not isinstance(tree, Mapping):
        raise UserError(f"{where}: must be a mapping with the sections {', '.join(RunConfig.model_fields)}")
    try:
        return RunConfig.model_validate(dict(tree))
    except ValidationError as error:
        raise UserError(validation_messages(error, where, _valid_names)) from error


def validation_messages(
    error: ValidationError, where: str, valid_names: Callable[[tuple[str | int, ...]], list[str]]
) -> list[str]:
    """Turn pydantic's errors into messages of the form `file: dotted.path: rule; got value; what is valid`."""
    messages = []
    for item in error.errors(include_url=False):
        path = ".".join(str(part) for part in item["loc"] if part not in _UNION_TAGS)
        place = f"{where}: {path}" if path else where
        if item["type"] == "extra_forbidden":
            hint = suggestion(str(item["loc"][-1]), valid_names(item["loc"][:-1]))
            messages.append(f"{place}: no such field; {hint}")
        elif item["type"] == "missing":
            messages.append(f"{place}: is required")
        else:
            rule = item["msg"].removeprefix("Value error, ").removeprefix("Input ")
            got = "" if isinstance(item["input"], Mapping | BaseModel) else f"; got {item['input']!r}"
            messages.append(f"{place}: {rule}{got}")
    return messages


def _valid_names(loc: tuple[str | int, ...]) -> list[str]:
    model: type[BaseModel] = RunConfig
    for part in loc:
        annotation = model.model_fields[str(part)].annotation
        if not (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
            return []
        model = annotation
    return list(model.model_fields)


def field_paths(model: type[BaseModel] = RunConfig, prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """Yield every leaf of the tree as (dotted path, pydantic field)."""
    for name, field in model.model_fields.items():
        annotation = field.annotation
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            yield from field_paths(annotation, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", field


def path_mistake(path: str) -> str | None:
    """Return what is wrong with a dotted path, with the nearest valid ones, or None where it names a field."""
    paths = [name for name, _ in field_paths()]
    if path in paths:
        return None
    inside = [name for name in paths if name.startswith(path + ".")]
    if inside:
        return f"is a section, not a field; valid: {', '.join(inside)}"
    return f"no such field; {suggestion(path, paths)}"


def override(tree: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return a copy of the nested `tree` with the dotted paths of `changes` set."""
    result = {key: dict(value) if isinstance(value, Mapping) else value for key, value in tree.items()}
    for path, value in changes.items():
        section, _, name = path.partition(".")
        if name:
            result.setdefault(section, {})[name] = value
        else:
            result[section] = value
    return result


def base_names() -> list[str]:
    """Return the names of the base configs that ship with the package."""
    folder = resources.files("vae_core.bases")
    return sorted(item.name.removesuffix(".yaml") for item in folder.iterdir() if item.name.endswith(".yaml"))


def load_base(name: str, where: str, relative_to: Path | None = None) -> dict[str, Any]:
    """Read a base config: the name of a shipped one, or the path of a YAML file.

    Raises:
        UserError: neither a shipped name nor a readable file; `where` is the place that names it.
    """
    if name in base_names():
        return dict(load_yaml(Path(str(resources.files("vae_core.bases") / f"{name}.yaml"))))
    path = (relative_to or Path()) / name
    if path.suffix not in (".yaml", ".yml"):
        raise UserError(f"{where}: no base config named {name!r}; {suggestion(name, base_names())}")
    tree = load_yaml(path)
    if not isinstance(tree, dict):
        raise UserError(f"{path}: must be a mapping with the sections {', '.join(RunConfig.model_fields)}")
    return tree


def identity(config: RunConfig) -> dict[str, Any]:
    """Return the config as a nested dict without its execution-only fields."""
    tree = config.model_dump(mode="json")
    for path, field in field_paths():
        extra = field.json_schema_extra
        if isinstance(extra, dict) and extra.get("execution_only"):
            section, _, name = path.partition(".")
            del tree[section][name]
    return tree


def run_id(config: RunConfig, data_fingerprint: str) -> str:
    """Return the 12 hex digits that name a run: a hash of its identity, its data and its seed."""
    content = json.dumps([identity(config), data_fingerprint], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(content.encode()).hexdigest()[:12]
