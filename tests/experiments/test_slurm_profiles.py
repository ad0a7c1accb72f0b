"""Named settings of jobs: where they are looked for, and what a sweep says on top of them."""

import pytest

from experiments.slurm_profiles import profiles_file, with_profile
from experiments.sweep import load_sweep
from experiments.sweep_file import LauncherConfig
from slurm.settings import SlurmSettings
from vae_core.errors import UserError


@pytest.fixture(autouse=True)
def own_file(tmp_path, monkeypatch):
    """The user's own file; it is not there before a test writes it."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    path = tmp_path / "config" / "vae-sweep" / "slurm.yaml"
    path.parent.mkdir(parents=True)
    return path


def launcher(**keys):
    return LauncherConfig.model_validate({"kind": "slurm", **keys})


def test_the_file_of_profiles_is_where_settings_of_programs_are(monkeypatch, tmp_path, own_file):
    assert profiles_file() == own_file
    monkeypatch.delenv("XDG_CONFIG_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert profiles_file() == tmp_path / ".config" / "vae-sweep" / "slurm.yaml"


def test_without_a_profile_nothing_is_read(own_file):
    own_file.write_text("not: [yaml")
    plain = launcher(slurm={"gpus": 2})
    assert with_profile(plain, "x") is plain


def test_what_the_sweep_says_itself_comes_before_its_profile(own_file):
    own_file.write_text(
        "a100: {partition: gpu, time: 2-00:00:00, gpus: 4, setup: [module load cuda], extra: {nice: 5}}"
    )
    given = launcher(profile="a100", slurm={"gpus": 1, "extra": {"nice": 1}}, idle_timeout_s=3.0)
    found = with_profile(given, "x")
    expected = SlurmSettings(partition="gpu", time=2880, gpus=1, setup=["module load cuda"], extra={"nice": 1})
    assert found.slurm == expected
    assert found.idle_timeout_s == 3.0


def test_a_default_that_the_sweep_writes_down_is_its_own_word_too(own_file):
    own_file.write_text("cpu: {gpus: 0, cpus: 8}")
    assert with_profile(launcher(profile="cpu", slurm={"gpus": 1}), "x").slurm.gpus == 1
    assert with_profile(launcher(profile="cpu"), "x").slurm.gpus == 0


def test_a_profile_of_the_sweep_comes_before_the_users_own_of_that_name(own_file):
    own_file.write_text("short: {time: 10}")
    assert with_profile(launcher(profile="short", profiles={"short": {"time": 20}}), "x").slurm.time == 20
    assert with_profile(launcher(profile="short", profiles={"long": {"time": 20}}), "x").slurm.time == 10


MISTAKES = [
    ("", r"x: launcher\.profile: no profile 'a10' in launcher\.profiles or in .*slurm\.yaml; there are none", None),
    ("a100: {}", r"launcher\.profile: no profile 'a10' .*; did you mean a100\?", None),
    ("", r"no profile 'a10' .*; did you mean a11\?", {"a11": {}}),
    ("- a10", r"slurm\.yaml: must be a mapping from names of profiles to settings; valid: partition, account", None),
    ("a10: fast", r"slurm\.yaml: a10: must be a mapping of settings; valid: partition, account", None),
    ("a10: {gpu: 1}", r"slurm\.yaml: a10: gpu: no such field; did you mean gpus", None),
    ("a10: {time: soon}", r"slurm\.yaml: a10: time: must be minutes, .*; got 'soon'", None),
    ("a10: {gpus: -1}", r"slurm\.yaml: a10: gpus: should be greater than or equal to 0; got -1", None),
    ("a10: {gpus: 1, gpus: 2}", r"slurm\.yaml, line 1, column 16: the key 'gpus' is written twice", None),
]


@pytest.mark.parametrize(("content", "message", "profiles"), MISTAKES)
def test_a_mistake_is_named_with_its_place_and_what_is_valid(own_file, content, message, profiles):
    if content:
        own_file.write_text(content)
    with pytest.raises(UserError, match=message):
        with_profile(launcher(profile="a10", profiles=profiles or {}), "x")


def test_settings_that_are_right_alone_and_wrong_together_are_refused(own_file):
    own_file.write_text("short: {time: 10}")
    with pytest.raises(UserError, match=r"x: launcher\.slurm with profile short: signal_delay_s: must be shorter"):
        with_profile(launcher(profile="short", slurm={"signal_delay_s": 600}), "x")


def test_a_sweep_is_read_with_its_profile(own_file, write_sweep):
    own_file.write_text("short: {time: 10, gpus: 0}")
    options = ["launcher.kind=slurm", "launcher.profile=short", "launcher.slurm.time=20"]
    settings = load_sweep(str(write_sweep()), options).file.launcher.slurm
    assert (settings.time, settings.gpus) == (20, 0)
    with pytest.raises(UserError, match=r"tiny\.yaml: launcher\.profile: no profile 'shrt' .* did you mean short\?"):
        load_sweep(str(write_sweep()), ["launcher.profile=shrt"])
