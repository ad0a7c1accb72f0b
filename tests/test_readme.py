"""README stays true: its sweep, its commands and its names."""

import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from slurm import sandbox

PROJECT = Path(__file__).parents[1]
README = (PROJECT / "README.md").read_text(encoding="utf-8")
DATA = Path(os.environ.get("VAE_SWEEP_TEST_DATA", PROJECT.parent / "shared" / "data"))


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


def commands() -> list[list[str]]:
    """Return every vae-sweep command of README's shell blocks, without the program's name."""
    lines = "\n".join(blocks("sh")).replace("\\\n", " ").splitlines()
    return [shlex.split(line, comments=True)[1:] for line in lines if line.startswith("vae-sweep ")]


def run(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "experiments.cli", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=cwd, stdin=subprocess.DEVNULL)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("VAE_SWEEP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("SLURM_CONF", str(tmp_path / "no-slurm.conf"))  # README's partition is not this machine's
    sweep = blocks("yaml")[0]
    (tmp_path / "latent.yaml").write_text(sweep)
    return tmp_path


def test_every_command_names_existing_sub_commands_and_options(folder):
    found = commands()
    assert len(found) >= 10
    for words in found:
        path = words[:2] if words[0] in ("data", "sandbox") else words[:1]
        page = run(*path, "--help", cwd=folder)
        assert page.returncode == 0, words
        for option in [word for word in words if word.startswith("-")]:
            assert option in page.stdout, f"{' '.join(words)}: {option}"


def test_the_example_sweep_plans_what_readme_says(folder):
    result = run("run", "latent.yaml", "--dry-run", cwd=folder)
    assert result.returncode == 0, result.stderr
    assert "4 cells x 3 seeds = 12 runs" in result.stdout
    assert "How many latent dimensions do wireframes need?" in result.stdout
    assert not (folder / "runs").exists()


def test_the_launcher_section_shown_is_accepted(folder):
    with (folder / "latent.yaml").open("a") as sweep:
        sweep.write(blocks("yaml")[1])
    result = run("run", "latent.yaml", "--dry-run", cwd=folder)
    assert result.returncode == 0, result.stderr
    for option in ("--partition=gpu_prod_long", "--exclude='old[01-17],sh00'", "--time=2880"):
        assert f"#SBATCH {option}" in result.stdout, result.stdout


def test_the_options_shown_in_the_text_are_accepted(folder):
    options = re.findall(r"`--set ([^`]+)`", README)
    assert len(options) >= 3
    for option in options:
        sweep = "beta" if "space." in option else "latent.yaml"
        [value] = shlex.split(option)
        result = run("run", sweep, "--dry-run", "--set", value, cwd=folder)
        assert result.returncode == 0, f"{option}: {result.stderr}"


def test_the_commands_for_real_data_are_accepted(folder):
    if not DATA.is_dir():
        pytest.skip(f"no test data at {DATA}")
    places = {"trees": DATA / "screen-annotation" / "trees", "fashion": DATA / "fashion-mnist"}
    ran = 0
    for words in commands():
        if words[0] != "run" or not any(word.startswith("data.path=") for word in words):
            continue
        place = places["fashion" if words[1] == "fashion_beta" else "trees"]
        words = [f"data.path={place}" if word.startswith("data.path=") else word for word in words]
        result = run(*words, "--dry-run", cwd=folder)
        assert result.returncode == 0, result.stderr
        ran += 1
    assert ran == 2


def test_the_commands_for_the_sandbox_work_one_after_the_other(folder):
    reason = sandbox.missing()
    if reason:
        pytest.skip(reason)
    [block] = re.findall(r"<!-- sandbox:begin -->\n```sh\n(.*?)```", README, re.DOTALL)
    place = Path(tempfile.mkdtemp(prefix="readme", dir="/tmp"))
    environment = os.environ | {"VAE_SWEEP_SANDBOX": str(place / "sandbox")}
    environment["PATH"] = f"{Path(sys.executable).parent}:{environment['PATH']}"
    environment.pop("SLURM_CONF", None)
    try:
        result = subprocess.run(
            ["bash", "-euc", block],
            capture_output=True,
            text=True,
            timeout=200,
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
        )
        assert result.returncode == 0, f"{result.stdout}\n{result.stderr}"
    finally:
        sandbox.stop(place / "sandbox")
        shutil.rmtree(place)
    for words in ("#SBATCH --gpus-per-node=1", "loss.beta=10 seed=0: done", "2 done", "GPU-hours", "code from"):
        assert words in result.stdout, result.stdout


def test_make_targets_and_linked_files_exist():
    makefile = (PROJECT / "Makefile").read_text()
    for target in re.findall(r"^make (\S+)", README, re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
    for link in re.findall(r"\]\(([^)#:]+)\)", README):
        assert (PROJECT / link).exists(), link
