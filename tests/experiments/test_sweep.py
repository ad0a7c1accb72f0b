"""Sweep files: what is accepted, and one clear message for each mistake."""

import pytest

from experiments.sweep import cell_name, load_sweep, resolved_text, shipped_sweeps, single_run, stored_sweep
from vae_core.config import identity
from vae_core.errors import UserError


def test_the_grid_is_every_combination_the_last_axis_fastest(write_sweep):
    sweep = load_sweep(str(write_sweep()), ["space.model.latent_dim=[2, 3]"])
    assert sweep.grid() == [
        {"loss.beta": 0.1, "model.latent_dim": 2},
        {"loss.beta": 0.1, "model.latent_dim": 3},
        {"loss.beta": 100.0, "model.latent_dim": 2},
        {"loss.beta": 100.0, "model.latent_dim": 3},
    ]
    assert cell_name(sweep.grid()[0]) == "loss.beta=0.1 model.latent_dim=2"
    config = sweep.config(sweep.grid()[1], 7)
    assert (config.loss.beta, config.model.latent_dim, config.seed, config.data.width) == (0.1, 3, 7, 16)


def test_question_name_and_seeds_come_from_the_file(write_sweep):
    sweep = load_sweep(str(write_sweep()), [])
    assert (sweep.name, sweep.question, sweep.seeds) == ("tiny", "Does a tiny sweep come to its end?", [0, 1])
    assert load_sweep(str(write_sweep()), ["seeds=[3, 5]"], "other").seeds == [3, 5]


def test_what_is_stored_in_the_study_is_read_back_the_same(write_sweep, tmp_path):
    sweep = load_sweep(str(write_sweep()), ["optim.lr=1e-5"])
    stored = tmp_path / "sweep.yaml"
    stored.write_text(resolved_text(sweep))
    again = stored_sweep(stored)
    assert identity(again.base_config) == identity(sweep.base_config)
    assert (again.name, again.question, again.grid(), again.seeds) == (
        sweep.name,
        sweep.question,
        sweep.grid(),
        sweep.seeds,
    )


def test_every_shipped_sweep_says_its_question_and_its_command(monkeypatch):
    from importlib import resources

    for name in shipped_sweeps():
        lines = (resources.files("sweeps") / f"{name}.yaml").read_text().splitlines()
        assert lines[0].startswith("# ")
        assert lines[0].endswith("?")
        assert lines[1].startswith(f"# vae-sweep run {name}")
        assert load_sweep(name, []).grid()


def test_relative_data_paths_are_taken_from_where_the_command_runs(write_sweep, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    sweep = load_sweep(str(write_sweep()), ["data.source=folder", "data.path=pictures"])
    assert sweep.base_config.data.path == str(tmp_path / "pictures")


def test_a_base_may_be_a_file_beside_the_sweep(write_sweep, tmp_path):
    (tmp_path / "mine.yaml").write_text("data: {count: 77}\n")
    path = write_sweep("# Q?\n# c\nbase: mine.yaml\n", "other.yaml")
    assert load_sweep(str(path), []).base_config.data.count == 77


MISTAKES = [
    ("space: {loss.bta: [1.0]}", r"space\.loss\.bta: no such field; did you mean loss\.beta"),
    ("set: {loss.bta: 1.0}", r"set\.loss\.bta: no such field; did you mean loss\.beta"),
    ("space: {loss: [1.0]}", r"space\.loss: is a section, not a field"),
    ("space: {loss.beta: [strong]}", r"space\.loss\.beta: should be a valid number; got 'strong'"),
    (
        "space: {loss.beta: [1.0, -1.0]}",
        r"space\.loss\.beta: should be greater than or equal to 0; got -1\.0",
    ),
    ("space: {loss.beta: []}", r"space\.loss\.beta: is an empty list"),
    ("space: {loss.beta: [1.0, 1.0]}", r"space\.loss\.beta: names a value twice"),
    ("space: {loss.beta: 3}", r"space\.loss\.beta: must be a list of values, or \{low"),
    (
        "space: {loss.beta: {low: 1, high: 2}}",
        r"space\.loss\.beta: a grid needs a list of values; use sampler: tpe",
    ),
    (
        "{sampler: tpe, trials: 2, space: {loss.beta: {low: 2, high: 1}}}",
        r"low must be below high, not 2 and 1",
    ),
    (
        "{sampler: tpe, trials: 2, space: {loss.beta: {low: 0, high: 1, log: true}}}",
        r"needs low above 0, not 0",
    ),
    (
        "{sampler: tpe, trials: 2, space: {loss.beta: {low: 1, high: 2, lgo: true}}}",
        r"space\.loss\.beta\.lgo: no such field; did you mean low or log",
    ),
    ("{sampler: tpe, trials: 2, space: {model.block: {low: 1, high: 2}}}", r"a range needs a numeric field"),
    ("sampler: tpe", r"trials: sampler tpe needs the number of trials"),
    ("trials: 4", r"trials: belongs to sampler tpe"),
    (
        "space: {model.block: [resnt]}",
        r"space\.model\.block: no such block; did you mean resnet\?; got 'resnt'",
    ),
    ("space: {seed: [1, 2]}", r"seed: is set by `seeds`"),
    ("seeds: 0", r"seeds: must be at least 1; got 0"),
    ("seeds: [1, 1]", r"seeds: must be different numbers"),
    ("seeds: many", r"seeds: must be the number of seeds or a list of seeds; got 'many'"),
    ("sampler: random", r"sampler: should be 'grid' or 'tpe'; got 'random'"),
    ("sampelr: grid", r"sampelr: no such field; did you mean sampler"),
    ("base: wirefames-tiny", r"base: no base config named 'wirefames-tiny'; did you mean wireframes-tiny"),
    ("baseline: {loss.beta: 7.0}", r"baseline\.loss\.beta: 7\.0 is not among the swept values"),
    ("baseline: {loss.sigma: 1.0}", r"baseline\.loss\.sigma: is not swept"),
    ("baseline: 3", r"baseline: must be a mapping of swept values, or the name of a named cell; got 3"),
    ("baseline: deeper", r"baseline: no named cell 'deeper'"),
    ("cells: {wide: {model.latent_dm: 4}}", r"cells\.wide\.model\.latent_dm: no such field; did you mean model\.lat"),
    ("cells: {wide: {model.latent_dim: many}}", r"cells\.wide: model\.latent_dim: should be a valid integer"),
    ("cells: {strong: {loss.beta: 9.0}}", r"cells\.strong\.loss\.beta: is an axis of space as well"),
    ("cells: {a: {model.cbam: true}, b: {model.cbam: true}}", r"cells\.b: is the same as cells\.a"),
    ("cells: {a: {model.latent_dim: 16}, b: {}}", r"cells\.b: is the same as cells\.a"),
    ("cells: {a: {train.pixel_budget: 9}}", r"cells\.a\.train\.pixel_budget: changes how a run is executed"),
    ("cells: {a: {seed: 9}}", r"cells\.a\.seed: is set by `seeds`"),
    ("launcher: {kind: cloud}", r"launcher\.kind: should be 'local', 'inline' or 'slurm'; got 'cloud'"),
    ("space: {loss.beta: [1, 1.0]}", r"space\.loss\.beta: names a value twice"),
    ("space: {train.pixel_budget: [1000, 2000]}", r"changes how a run is executed, not what it learns"),
    ("objective: {metric: val/lpips}", r"objective\.metric: val/lpips needs evaluate\.lpips: required"),
    ("set: {train.epochs: 1.5}", r"set\.train\.epochs: should be a valid integer"),
    ("set: {data.val_fraction: 0.85}", r"must leave at least a tenth"),
]


@pytest.mark.parametrize(("change", "message"), MISTAKES)
def test_a_mistake_is_one_message_with_file_and_path(write_sweep, change, message):
    plain = {"base": "wireframes-tiny", "space": {"loss.beta": [0.1, 1.0]}}
    from vae_core.yaml_io import dump_yaml, parse_yaml

    path = write_sweep("# Q?\n# c\n" + dump_yaml({**plain, **parse_yaml(change, "change")}), "wrong.yaml")
    with pytest.raises(UserError, match=message) as caught:
        load_sweep(str(path), [])
    assert len(caught.value.messages) == 1
    assert str(path) in caught.value.messages[0]


NAMED = """# Which changes help together?
# vae-sweep run named.yaml
base: wireframes-tiny
cells:
  plain: {}
  wider: {model.encoder_widths: [24, 48], model.latent_dim: 24}
  plain blocks: {model.block: plain}
space: {loss.beta: [0.1, 1]}
baseline: {loss.beta: 1.0, model.block: resnet}
seeds: 1
"""


def test_named_cells_change_several_fields_at_once_and_are_crossed_with_the_space(write_sweep):
    sweep = load_sweep(str(write_sweep(NAMED, "named.yaml")), [])
    names = [sweep.cell_name(params) for params in sweep.grid()]
    assert names == [f"{name} loss.beta={beta}" for name in ("plain", "wider", "plain blocks") for beta in (0.1, 1)]
    wider = sweep.config(sweep.grid()[3], 0)
    assert (wider.model.encoder_widths, wider.model.latent_dim, wider.loss.beta) == ((24, 48), 24, 1.0)
    base = sweep.config(sweep.grid()[4], 0)  # what a cell does not name is the base's
    assert (base.model.encoder_widths, base.model.latent_dim, base.model.block) == ((16, 32), 16, "plain")
    assert sweep.axes["model.block"] == ["resnet", "plain"]
    assert list(sweep.axes) == ["model.encoder_widths", "model.latent_dim", "model.block", "loss.beta"]


def test_the_path_of_a_checkpoint_is_made_absolute_like_those_of_data(write_sweep, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    options = ["loss.perceptual.network=checkpoint", "loss.perceptual.path=weights.pth", "data.cache_dir=cache"]
    config = load_sweep(str(write_sweep()), options).base_config
    assert config.loss.perceptual.path == str(tmp_path / "weights.pth")
    assert config.data.cache_dir == str(tmp_path / "cache")


def test_an_option_for_what_named_cells_set_is_refused(write_sweep):
    with pytest.raises(UserError, match=r"--set model\.latent_dim: cells of this sweep set model\.latent_dim"):
        load_sweep(str(write_sweep(NAMED, "named.yaml")), ["model.latent_dim=8"])


def test_a_stored_sweep_keeps_its_named_cells(write_sweep, tmp_path):
    sweep = load_sweep(str(write_sweep(NAMED.replace("{loss.beta: 1.0, model.block: resnet}", "wider"), "n.yaml")), [])
    assert sweep.file.baseline == {"model.encoder_widths": [24, 48], "model.latent_dim": 24, "model.block": "resnet"}
    path = tmp_path / "sweep.yaml"
    path.write_text(resolved_text(sweep))
    stored = stored_sweep(path)
    assert stored.grid() == sweep.grid()
    assert stored.axes == sweep.axes
    assert [stored.cell_name(params) for params in stored.grid()] == [sweep.cell_name(p) for p in sweep.grid()]


def test_a_key_written_twice_is_refused(write_sweep):
    path = write_sweep("# Q?\n# c\nbase: wireframes-tiny\nspace:\n  loss.beta: [1.0]\n  loss.beta: [2.0]\n")
    with pytest.raises(UserError, match=r"tiny\.yaml, line 6, column 3: the key 'loss\.beta' is written twice"):
        load_sweep(str(path), [])


@pytest.mark.parametrize("key", ["set", "space", "cells", "launcher"])
def test_a_section_that_is_no_mapping_is_refused_also_under_options(write_sweep, key):
    path = write_sweep(f"# Q?\n# c\nbase: wireframes-tiny\n{key}: 3\n")
    with pytest.raises(UserError, match=rf"tiny\.yaml: {key}: should be a mapping; got 3"):
        load_sweep(str(path), ["loss.sigma=1.0"])


def test_mistakes_of_several_axes_are_gathered(write_sweep):
    path = write_sweep("# Q?\n# c\nbase: wireframes-tiny\nspace: {loss.bta: [1.0], optim.l: [2.0]}\n")
    with pytest.raises(UserError, match=r"loss\.bta") as caught:
        load_sweep(str(path), [])
    assert len(caught.value.messages) == 2


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("loss.beta", r"--set loss\.beta: must look like path=value"),
        ("loss.beta=3", r"--set loss\.beta: this sweep varies loss\.beta; write --set 'space\.loss\.beta"),
        ("loss.bta=3", r"--set loss\.bta: no such field"),
        ("data.width=wide", r"--set data\.width: should be a valid integer; got 'wide'"),
        ("optim.lr=[", r"--set optim\.lr, line 1"),
    ],
)
def test_an_option_is_blamed_by_its_name(write_sweep, option, message):
    with pytest.raises(UserError, match=message):
        load_sweep(str(write_sweep()), [option])


def test_an_axis_replaced_on_the_command_line_drops_a_baseline_that_is_not_on_it(write_sweep):
    assert load_sweep(str(write_sweep()), ["space.loss.beta=[1.0, 2.0]"]).file.baseline == {}


def test_neither_a_file_nor_a_shipped_name(tmp_path):
    with pytest.raises(UserError, match=r"betta: neither a file nor a shipped sweep; did you mean beta"):
        load_sweep("betta", [])
    with pytest.raises(UserError, match=r"nowhere\.yaml: no such sweep file; shipped sweeps: augmentation, b"):
        load_sweep(str(tmp_path / "nowhere.yaml"), [])


def test_a_name_that_cannot_be_a_folder_is_refused(write_sweep):
    with pytest.raises(UserError, match=r"--study: '\.\./evil' cannot name a folder"):
        load_sweep(str(write_sweep()), [], "../evil")


def test_a_single_training_is_a_sweep_of_one_cell(monkeypatch):
    sweep = single_run("wireframes-tiny", ["loss.beta=3", "seed=4"])
    assert sweep.grid() == [{}]
    assert (sweep.seeds, sweep.name, sweep.base_config.loss.beta) == ([4], "train-wireframes-tiny", 3.0)
    assert cell_name({}) == "base"
    with pytest.raises(UserError, match=r"--set loss\.beta: should be a valid number; got 'x'"):
        single_run("wireframes-tiny", ["loss.beta=x"])


def test_fields_under_set_may_need_one_another(write_sweep):
    options = ["model.family=cvae", "data.labelled_fraction=0.3", "data.unlabelled=drop"]
    config = load_sweep(str(write_sweep()), options).base_config
    assert (config.model.family, config.data.labelled_fraction) == ("cvae", 0.3)
    with pytest.raises(UserError, match=r"optim\.lr: should be greater than 0") as raised:
        load_sweep(str(write_sweep()), [*options, "optim.lr=-1.0"])
    assert len(raised.value.messages) == 1
    with pytest.raises(UserError, match=r"data\.unlabelled: drop do nothing with model\.family: vae"):
        load_sweep(str(write_sweep()), options[1:])
