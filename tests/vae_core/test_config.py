"""The config tree: messages, paths, overrides and identity."""

import pytest

from vae_core.config import (
    RunConfig,
    base_names,
    field_paths,
    identity,
    load_base,
    override,
    parse_config,
    path_mistake,
    run_id,
)
from vae_core.errors import UserError


def test_every_shipped_base_is_valid_and_named_in_the_documented_list() -> None:
    assert base_names() == [
        "fashion-mnist",
        "fashion-mnist-conv",
        "images",
        "images-small",
        "mnist-mlp",
        "wireframes",
        "wireframes-tiny",
    ]
    for name in base_names():
        parse_config(load_base(name, "test"), name)


def test_every_field_has_a_description() -> None:
    silent = [path for path, field in field_paths() if not field.description]
    assert silent == []


def test_every_mistake_is_named_at_once_with_path_rule_and_value() -> None:
    tree = {
        "loss": {"betaa": 1, "sigma": -1, "beta": "strong"},
        "model": {"block": "resnt", "stem_kernel": 4},
        "train": {"epochs": True},
        "los": {},
    }
    with pytest.raises(UserError, match=r"f\.yaml: loss\.betaa: no such field; did you mean beta") as caught:
        parse_config(tree, "f.yaml")
    text = str(caught.value)
    for part in (
        "f.yaml: loss.sigma: should be greater than 0; got -1",
        "f.yaml: loss.beta: should be a valid number; got 'strong'",
        "f.yaml: model.block: no such block; did you mean resnet?; got 'resnt'",
        "f.yaml: model.stem_kernel: must be odd",
        "f.yaml: train.epochs: should be a valid integer; got True",
        "f.yaml: los: no such field; did you mean loss?",
    ):
        assert part in text


def test_not_a_mapping_is_refused() -> None:
    with pytest.raises(UserError, match="must be a mapping with the sections data, model"):
        parse_config([1], "f.yaml")


def test_rules_over_several_fields() -> None:
    with pytest.raises(UserError, match="must leave at least a tenth"):
        parse_config({"data": {"val_fraction": 0.5, "test_fraction": 0.45}}, "f")
    with pytest.raises(UserError, match="needs lpips: required"):
        parse_config({"evaluate": {"select": "val/lpips"}}, "f")


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("loss.bta", "did you mean loss.beta"),
        ("loss", "is a section, not a field; valid: loss.reconstruction"),
        ("xyz", "valid names start with data, evaluate, loss, model, optim, seed, train"),
    ],
)
def test_a_wrong_path_is_explained(path: str, message: str) -> None:
    assert message in (path_mistake(path) or "")


def test_the_names_used_outside_exist() -> None:
    for path in (
        "loss.beta",
        "loss.beta_schedule",
        "loss.reconstruction",
        "model.latent_dim",
        "model.block",
        "train.epochs",
        "train.effective_batch",
        "train.threads",
        "optim.lr",
        "data.split_seed",
        "seed",
    ):
        assert path_mistake(path) is None


def test_override_leaves_the_original_alone() -> None:
    tree = {"loss": {"beta": 1.0}}
    changed = override(tree, {"loss.beta": 2.0, "seed": 3, "optim.lr": 0.1})
    assert changed == {"loss": {"beta": 2.0}, "seed": 3, "optim": {"lr": 0.1}}
    assert tree == {"loss": {"beta": 1.0}}


def test_the_config_is_frozen() -> None:
    with pytest.raises(Exception, match="frozen"):
        RunConfig().loss.beta = 2.0  # type: ignore[misc]


EXECUTION_ONLY = {
    "data.path": "/elsewhere",
    "data.labels": "/labels.csv",
    "data.cache_dir": "/tmp/cache",  # noqa: S108 - only a value
    "data.max_skipped": 3,
    "data.max_pixels": 10**6,
    "train.pixel_budget": 1000,
    "train.device": "cpu",
    "train.checkpoint_minutes": 1.0,
    "train.figures_every": 2,
}


def test_exactly_the_documented_fields_are_execution_only() -> None:
    marked = {
        path
        for path, field in field_paths()
        if isinstance(field.json_schema_extra, dict) and field.json_schema_extra.get("execution_only")
    }
    assert marked == set(EXECUTION_ONLY)


@pytest.mark.parametrize("path", sorted(EXECUTION_ONLY))
def test_an_execution_only_field_does_not_change_the_run_id(path: str) -> None:
    plain = parse_config({}, "t")
    changed = parse_config(override({}, {path: EXECUTION_ONLY[path]}), "t")
    assert run_id(changed, "data") == run_id(plain, "data")
    assert identity(changed) == identity(plain)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("loss.beta", 2.0),
        ("seed", 1),
        ("train.threads", 2),
        ("data.split_seed", 5),
        ("train.effective_batch", 63),
    ],
)
def test_an_identity_field_changes_the_run_id(path: str, value: object) -> None:
    assert run_id(parse_config(override({}, {path: value}), "t"), "data") != run_id(parse_config({}, "t"), "data")


def test_the_data_changes_the_run_id_and_spelling_does_not() -> None:
    config = parse_config({"loss": {"beta": 1}}, "t")
    assert run_id(config, "a") != run_id(config, "b")
    assert run_id(config, "a") == run_id(parse_config({"loss": {"beta": 1.0}}, "t"), "a")


def test_an_unknown_base_names_the_nearest() -> None:
    with pytest.raises(UserError, match=r"s\.yaml: base: no base config named 'wireframe-tiny'; did you mean"):
        load_base("wireframe-tiny", "s.yaml: base")
