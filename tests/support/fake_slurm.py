"""SLURM's commands as a test wants them: each prints what the test says, and all write down what they were asked."""

import re
from pathlib import Path

from support.fake_site import alone_on_path


class FakeSlurm:
    """Commands alone on PATH, in `folder`; none is there before a test says what it prints."""

    def __init__(self, folder: Path, monkeypatch) -> None:
        self.folder = folder
        self._monkeypatch = monkeypatch
        alone_on_path(folder, monkeypatch, {})

    def runs(self, command: str, lines: str) -> None:
        """Make a command of shell lines."""
        alone_on_path(self.folder, self._monkeypatch, {command: lines})

    def prints(self, command: str, text: str = "") -> None:
        """Have a command print the text."""
        (self.folder / f"{command}.text").write_text(text)
        self.runs(command, f"cat {self.folder}/{command}.text")

    def refuses(self, command: str, reason: str = "Unable to contact slurm controller") -> None:
        """Have a command fail with the reason, as Slurm's own say it."""
        self.runs(command, f"echo '{command}: error: {reason}' >&2; exit 1")

    def accepts_jobs(self, first: int = 100, max_array_size: int = 1001) -> None:
        """Have sbatch take every script and number the jobs from `first`."""
        (self.folder / "next").write_text(str(first))
        self.prints("scontrol", f"MaxArraySize            = {max_array_size}\n")
        self.runs("srun", "exit 1")  # submitit looks for it and never calls it here
        self.runs(
            "sbatch",
            f"number=$(cat {self.folder}/next)\n"
            f"echo $((number + 1)) > {self.folder}/next\n"
            f'cp "$1" {self.folder}/$number.script\n'
            'echo "Submitted batch job $number"',
        )

    def takes_submissions(self, number: int) -> None:
        """After `accepts_jobs`: have sbatch refuse all that come after so many, as where a limit is reached."""
        limit = int((self.folder / "next").read_text()) + number
        refused = "sbatch: error: Batch job submission failed: Job violates accounting/QOS policy"
        taken = (self.folder / "sbatch").read_text().partition("asked\n")[2]
        self.runs(
            "sbatch", f"[ $(cat {self.folder}/next) -lt {limit} ] || {{ echo '{refused}' >&2; exit 1; }}\n{taken}"
        )

    def asked(self, command: str) -> list[str]:
        """Return the arguments of every call of a command so far."""
        path = self.folder / "asked"
        lines = path.read_text().splitlines() if path.exists() else []
        return [line.removeprefix(command).strip() for line in lines if line.split(" ")[0] == command]

    def scripts(self) -> list[str]:
        """Return the scripts that sbatch took, in their order."""
        return [path.read_text() for path in sorted(self.folder.glob("*.script"), key=lambda path: int(path.stem))]

    def options(self, name: str) -> list[str | None]:
        """Return the value that each of those scripts gives an option of sbatch; None where it does not."""
        return [option(script, name) for script in self.scripts()]


def option(script: str, name: str) -> str | None:
    """Return the value that a script gives an option of sbatch, empty for a flag; None where it does not."""
    found = re.search(rf"^#SBATCH --{name}(?:=(.*))?$", script, re.MULTILINE)
    return found and (found[1] or "").strip("'")
