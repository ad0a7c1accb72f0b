"""The configuration of one training run: a single frozen tree, the only place where defaults and units are written.

Its sections lie in `vae_core/schema/`. A field marked `EXECUTION_ONLY` there may differ between machines without
changing what is learnt; every other field is part of the run's identity (`identity`).
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from importlib import resources
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, Field, ValidationError, model_validator
from pydantic.fields import FieldInfo

from vae_core.errors import UserError, suggestion
from vae_core.schema.data import DataConfig
from vae_core.schema.evaluate import EvaluateConfig
from vae_core.schema.loss import LossConfig
from vae_core.schema.model import ModelConfig
from vae_core.schema.optim import OptimConfig
from vae_core.schema.section import Section
from vae_core.schema.train import TrainConfig
from vae_core.yaml_io import load_yaml

__all__ = ["DataConfig", "EvaluateConfig", "LossConfig", "ModelConfig", "OptimConfig", "RunConfig", "TrainConfig"]

_MIXABLE = ("ae", "vae", "hierarchical")  # between two of whose codes there are others
_UNION_TAGS = {"tuple", "values", "range"}  # pydantic names the branch of a union in an error's path


class RunConfig(Section):
    """Everything that determines one training run."""

    data: DataConfig = Field(default_factory=DataConfig)
    model: ModelConfig = Field(default_factory=ModelConfig)
    loss: LossConfig = Field(default_factory=LossConfig)
    optim: OptimConfig = Field(default_factory=OptimConfig)
    train: TrainConfig = Field(default_factory=TrainConfig)
    evaluate: EvaluateConfig = Field(default_factory=EvaluateConfig)
    seed: int = Field(0, ge=0, description="seed of the initial weights, the data order and the latent noise")

    @model_validator(mode="after")
    def _skips_open_in_time(self) -> "RunConfig":
        if self.model.skips and self.model.skip_warmup_epochs >= self.train.epochs:
            raise ValueError(
                f"model.skip_warmup_epochs: {self.model.skip_warmup_epochs:g} must be less than train.epochs "
                f"({self.train.epochs}), or the skips never open"
            )
        return self

    @model_validator(mode="after")
    def _selects_by_one_function(self) -> "RunConfig":
        moving = [
            name
            for name, moves in {
                "loss.beta_schedule": self.loss.beta_schedule != "constant",
                "loss.phases": bool(self.loss.phases),
                "loss.kl_control": self.loss.kl_control in ("capacity", "pi"),
                "loss.sigma_mode": self.loss.sigma_mode != "fixed",
            }.items()
            if moves
        ]
        if self.evaluate.select == "val/objective" and moving:
            raise ValueError(
                f"evaluate.select: val/objective is another function in every epoch with {', '.join(moving)}; take "
                "val/elbo, val/ssim or val/mse"
            )
        return self

    @model_validator(mode="after")
    def _codes_can_be_mixed(self) -> "RunConfig":
        if self.data.augment.latent_mixup is None:
            return self
        if self.model.family not in _MIXABLE:
            raise ValueError(
                f"data.augment.latent_mixup needs model.family {', '.join(_MIXABLE)}, not {self.model.family}"
            )
        if self.model.skips:
            raise ValueError("data.augment.latent_mixup mixes codes alone; leave model.skips at false")
        return self

    @model_validator(mode="after")
    def _labels_have_a_use(self) -> "RunConfig":
        data, model = self.data, self.model
        if not model.conditional and (data.labelled_fraction != 1.0 or data.unlabelled != "use"):
            raise ValueError(
                f"data.labelled_fraction: {data.labelled_fraction:g} and data.unlabelled: {data.unlabelled} do nothing "
                f"with model.family: {model.family}; take cvae, or leave them at 1 and use"
            )
        if data.labelled_fraction < 1 and data.unlabelled == "use" and model.classification == 0:
            raise ValueError(
                "model.classification: 0 is no classifier, which images without a label need; set it above 0, or "
                "data.unlabelled: drop"
            )
        return self


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
        if isinstance(part, int):  # a position in a list of sections
            continue
        annotation = model.model_fields[part].annotation
        annotation = next(iter(get_args(annotation)), annotation)
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
    """Return a copy of the nested `tree` with the dotted paths of `changes` set, sections made where missing."""
    result = _copied(tree)
    for path, value in changes.items():
        *sections, name = path.split(".")
        target = result
        for section in sections:
            target = target.setdefault(section, {})
        target[name] = value
    return result


def value_at(tree: Mapping[str, Any], path: str) -> Any:
    """Return what the nested `tree` holds at a dotted path."""
    for name in path.split("."):
        tree = tree[name]
    return tree


def _copied(tree: Mapping[str, Any]) -> dict[str, Any]:
    return {key: _copied(value) if isinstance(value, Mapping) else value for key, value in tree.items()}


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
            *sections, name = path.split(".")
            target = tree
            for section in sections:
                target = target[section]
            del target[name]
    return tree


def run_id(config: RunConfig, data_fingerprint: str) -> str:
    """Return the 12 hex digits that name a run: a hash of its identity, its data and its seed."""
    content = json.dumps([identity(config), data_fingerprint], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(content.encode()).hexdigest()[:12]
