"""Sweeps on the sandbox, and what tests look for in the folders that they leave."""

import subprocess
import sys
from collections import defaultdict
from pathlib import Path

from support.engine import (
    all_weights,
    assert_same_weights,
    expected_rows,
    journal_lines,
    mlflow_rows,
    mlflow_runs,
    optuna_trials,
)
from support.slurm import wait_until

COMMAND = [sys.executable, "-m", "experiments.cli"]
JOBS = {  # quick questions to the scheduler, and the small jobs of a test
    "launcher.slurm.poll_s": 0.5,
    "launcher.slurm.time": 30,
    "launcher.slurm.signal_delay_s": 10,
    "launcher.slurm.cpus": 1,
    "launcher.lease_s": 5,
}
LONG = {"train.epochs": 90, "train.figures_every": 90, "seeds": 1}  # long enough to be disturbed


def options(*settings: dict) -> list[str]:
    """Return `--set` options; later settings replace earlier ones."""
    merged: dict = {}
    for setting in settings:
        merged |= setting
    return [word for path, value in merged.items() for word in ("--set", f"{path}={value}")]


def vae_sweep(*arguments: object, check: int = 0, timeout_s: float = 200) -> subprocess.CompletedProcess[str]:
    result = subprocess.run(
        [*COMMAND, *map(str, arguments)], capture_output=True, text=True, timeout=timeout_s, stdin=subprocess.DEVNULL
    )
    assert result.returncode == check, f"exit {result.returncode}\n{result.stdout}\n{result.stderr}"
    return result


class RunningSweep:
    """`vae-sweep run --launcher slurm` in the background, with its output in a file."""

    def __init__(
        self, sweep: Path, root: Path, *settings: dict, extra: tuple[str, ...] = (), checkout: Path | None = None
    ) -> None:
        self._checkout = checkout  # whose code runs; None: the one under test
        self.study = root / sweep.stem
        self.root = root
        root.mkdir(exist_ok=True)
        self._output = root / f"{sweep.stem}.output"
        self._command = [*COMMAND, "run", str(sweep), "--root", str(root), "--launcher", "slurm", "--allow-dirty"]
        self._command += [*options(JOBS, *settings), *extra]
        self._start()

    def _start(self) -> None:
        with self._output.open("a") as output:
            self.process = subprocess.Popen(
                self._command,
                stdout=output,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                cwd=self._checkout,
            )

    def kill(self) -> None:
        """Kill -9 the coordinator."""
        self.process.kill()
        self.process.wait()

    def again(self) -> None:
        """Give the same command again."""
        self._start()

    @property
    def output(self) -> str:
        return self._output.read_text()

    def finish(self, timeout_s: float = 150, code: int = 0) -> str:
        """Wait for the end and return what was printed."""
        try:
            assert self.process.wait(timeout_s) == code, f"{self.output}\n{self.logs()}"
        except subprocess.TimeoutExpired:
            raise AssertionError(f"not finished after {timeout_s} s\n{self.output}\n{self.logs()}") from None
        return self.output

    def logs(self) -> str:
        return "\n".join(f"== {path}\n{path.read_text()[-3000:]}" for path in self.study.glob("slurm/*/*_log.err"))

    def lines(self, kind: str | None = None) -> list[dict]:
        """Return the journal lines of all runs, each with its run's id."""
        found = []
        for run in sorted((self.study / "runs").glob("*")):
            lines = journal_lines(run) if (run / "attempts").is_dir() else []
            found += [{**line, "run": run.name} for line in lines if kind in (None, line["kind"])]
        return found

    def await_epochs(self, count: int = 2, runs: int = 1) -> None:
        """Wait until `runs` runs have journalled `count` epochs each."""

        def reached() -> bool:
            assert self.process.poll() is None, f"it has ended\n{self.output}\n{self.logs()}"
            epochs: dict[str, int] = defaultdict(int)
            for line in self.lines("epoch"):
                epochs[line["run"]] += 1
            return sum(number >= count for number in epochs.values()) >= runs

        wait_until(reached, f"{count} epochs of {runs} runs", timeout_s=90)

    def jobs(self) -> dict[str, str]:
        """Return run -> job of its newest attempt."""
        return {line["run"]: line["job"] for line in self.lines("attempt") if line.get("job")}

    def attempts(self) -> dict[str, list[int]]:
        found = defaultdict(list)
        for line in self.lines("attempt"):
            found[line["run"]].append(line["attempt"])
        return dict(found)


def assert_undisturbed(root: Path, whole: Path, study: str = "tiny") -> None:
    """Weights bit-equal, every metric row once, the same runs and trials as in the undisturbed root."""
    assert_same_weights(all_weights(root / study), all_weights(whole / study))
    rows = mlflow_rows(root)
    assert set(rows.values()) == {1}
    assert set(rows) == expected_rows(root / study) == set(mlflow_rows(whole))
    assert mlflow_runs(root) == mlflow_runs(whole)
    assert optuna_trials(root, study) == optuna_trials(whole, study)
    assert not list((root / study / "queue").iterdir())
    assert not list((root / study / "claimed").iterdir())


def table(root: Path, study: str = "tiny") -> str:
    return (root / study / "report" / "table.md").read_text()
