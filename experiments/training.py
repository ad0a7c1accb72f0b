"""One attempt of one run, as a worker executes it: resume, train, write everything down, test the best weights."""

import re
import time
import traceback
from collections.abc import Generator
from dataclasses import asdict
from typing import Any

import torch

from experiments.failures import DeviceBrokenError
from experiments.history import read_history
from experiments.place import Place
from experiments.run_artifacts import machine_of, write_artifacts, write_provenance
from tracking.checkpoints import FoundCheckpoint, newest_checkpoint, save_checkpoint
from tracking.files import read_json
from tracking.heartbeat import Heartbeat, host_name, process_identity
from tracking.journal import JournalWriter, read_journal
from tracking.queue import Claim
from tracking.run_directory import AttemptDirectory, RunDirectory, StudyDirectory
from tracking.system_metrics import SystemMetrics
from vae_core.config import RunConfig, parse_config
from vae_core.data import Dataset, prepare
from vae_core.diagnostics import curve_roughness
from vae_core.errors import UserError
from vae_core.events import Epoch, Interrupted, Step
from vae_core.figures import write_figures
from vae_core.trainer import DeviceMissingError, Trainer, TrainingDivergedError
from vae_core.yaml_io import load_yaml

_DEVICE_FAILED = re.compile(
    r"CUDA (driver )?error:|cuDNN error: CUDNN_STATUS_(EXECUTION_FAILED|INTERNAL_ERROR|MAPPING_ERROR)"
)
_FULL_MEMORY = ("can't allocate memory", "CUDA error: out of memory")  # torch raises plain RuntimeErrors for these
_TIMED = "time/"  # measurements that no two attempts share


class DataChangedError(Exception):
    """The data set is not the one that the run was planned for."""


class Attempt:
    """Executes a claimed attempt; whatever happens ends up in its journal.

    Args:
        study: the study's folder.
        claim: the queue entry this worker has won.
        place: where this worker runs.
    """

    def __init__(self, study: StudyDirectory, claim: Claim, place: Place) -> None:
        self.longest_epoch_s = 0.0
        self._place = place
        self._study = study
        self._run: RunDirectory = study.run(claim.entry.run)
        self._number = claim.entry.attempt
        self._scale = claim.entry.pixel_budget_scale
        self._worker = claim.worker
        self._directory: AttemptDirectory = self._run.attempt(self._number)
        self._found: FoundCheckpoint | None = None
        self._opened = False
        self._trainer: Trainer | None = None
        self._system: SystemMetrics | None = None
        self._stop_requested = False

    def request_stop(self) -> None:
        """Ask for a checkpoint after the current optimizer step; safe in a signal handler."""
        self._stop_requested = True
        if self._trainer is not None:
            self._trainer.request_stop()

    def execute(self) -> Generator[None, None, bool]:
        """Run to the end, to an interruption or to a failure, pausing after every event of the trainer.

        A failure of the run itself is journalled with its traceback and not raised.

        Returns:
            Whether the run has ended; if not, its next attempt goes on.

        Raises:
            DeviceMissingError, DeviceBrokenError: this process cannot train; its next attempt needs another one.
        """
        self._directory.create()
        with (
            JournalWriter(self._directory.journal_file) as journal,
            Heartbeat(self._directory.heartbeat_file, stall_timeout_s=self._place.stall_timeout_s) as beat,
        ):
            try:
                return (yield from self._train(journal, beat))
            except DeviceMissingError as error:
                self._open(journal, device=None, tags={})
                journal.append("lost", reason=str(error))
                raise
            except (KeyboardInterrupt, SystemExit, OSError):
                raise  # the machine's doing, not the run's: the next attempt may succeed
            except Exception as error:
                self._open(journal, device=None, tags={})
                failure = _failure(error)
                if failure["failure"] == "exception" and _is_of_the_device(error):
                    reason = f"{self._place.words} on {host_name()}: {failure['reason'].splitlines()[0]}"
                    journal.append("lost", reason=reason)
                    raise DeviceBrokenError(reason) from error
                journal.append("end", **failure, pixel_budget_scale=self._scale)
                return True

    def _train(self, journal: JournalWriter, beat: Heartbeat) -> Generator[None, None, bool]:
        self._found = newest_checkpoint(self._run, self._number)
        if self._run.prune_file.exists():
            self._open(journal, device=None, tags={})
            return self._prune(journal)
        config = self._config()
        budget = int(config.train.pixel_budget * self._scale)
        trainer = Trainer(config, self._dataset(config, beat), budget, on_batch_evaluated=beat.advance)
        if self._found is not None:
            trainer.load_state_dict(self._found.state)
        self._open(journal, device=str(trainer.device), tags=trainer.tags)
        self._trainer = trainer
        if self._stop_requested:  # the signal came before there was a trainer to tell
            trainer.request_stop()
        with SystemMetrics(str(trainer.device)) as self._system:
            finished = yield from self._follow(trainer, journal, beat)
        if finished:
            self._conclude(trainer, journal)
            return True
        if self._run.prune_file.exists():
            return self._prune(journal)
        journal.append("interrupted", step=trainer.step, reason="asked to stop")
        return False

    def _prune(self, journal: JournalWriter) -> bool:
        """End the run before its time because somebody asked for that."""
        journal.append("end", status="pruned", failure=None, reason="asked to prune", traceback=None)
        return True

    def _config(self) -> RunConfig:
        """Return the run's config as it is executed here.

        Raises:
            DeviceMissingError: a GPU was promised, the config leaves the choice to the machine, and there is none.
        """
        config = parse_config(load_yaml(self._run.config_file), str(self._run.config_file))
        if self._place.data_cache is not None:
            data = config.data.model_copy(update={"cache_dir": str(self._place.data_cache)})
            config = config.model_copy(update={"data": data})
        refuse_missing_gpu(self._place, config.train.device)
        return config

    def _open(self, journal: JournalWriter, device: str | None, tags: dict[str, str]) -> None:
        """Write the attempt's first line, once: where it runs and what it continues from."""
        if self._opened:
            return
        identity = process_identity()
        found = self._found
        journal.append(
            "attempt",
            attempt=self._number,
            worker=self._worker,
            host=identity["host"],
            pid=identity["pid"],
            device=device,
            continues={"attempt": found.attempt, "n": found.covers} if found else None,
            start_step=found.step if found else 0,
            after=_end_of(self._run, self._number - 1),
            torch=torch.__version__,
            job=self._place.job,
            gpus=self._place.gpus,
            wait_s=self._place.wait_s,
            machine=machine_of(device),
            provenance=write_provenance(self._study, self._run, self._directory, device),
            tags=tags,
        )
        self._opened = True

    def _dataset(self, config: RunConfig, beat: Heartbeat) -> Dataset:
        planned = read_json(self._run.info_file)["data_fingerprint"]
        dataset = prepare(config.data, lambda *_: beat.advance())
        if dataset.fingerprint != planned:
            raise DataChangedError(
                f"the data set's fingerprint is {dataset.fingerprint}, but the run was planned for {planned}; "
                "bring the old data back, or start a new study"
            )
        return dataset

    def _follow(self, trainer: Trainer, journal: JournalWriter, beat: Heartbeat) -> Generator[None, None, bool]:
        """Write down what the trainer says; return whether it came to the end."""
        before = _measured_before(self._run, self._number, self._found)
        last_n = 0
        saved = time.monotonic()
        patience_s = trainer.config.train.checkpoint_minutes * 60
        for event in trainer.fit():
            match event:
                case Step():
                    beat.advance()
                    if not last_n:
                        last_n = journal.append("first_step", step=event.step).n
                    if time.monotonic() - saved > patience_s:
                        self._checkpoint(trainer, journal, last_n)
                        saved = time.monotonic()
                case Epoch():
                    last_n = self._record(event, trainer, journal, before)
                    self._checkpoint(trainer, journal, last_n)
                    saved = time.monotonic()
                case Interrupted():
                    self._checkpoint(trainer, journal, last_n)
                    return False
            yield
        return True

    def _record(
        self, event: Epoch, trainer: Trainer, journal: JournalWriter, before: dict[tuple[int, str], float]
    ) -> int:
        """Append the epoch's line (and its figures, where due) and return the number of the last line."""
        self.longest_epoch_s = max(self.longest_epoch_s, event.seconds)
        line = journal.append(
            "epoch",
            epoch=event.epoch,
            step=event.step,
            metrics=event.metrics,
            vectors=event.vectors,
            seconds=event.seconds,
            system=self._system.since_last() if self._system else {},
        )
        for key, value in event.metrics.items():
            earlier = before.get((event.epoch, key), value)
            if earlier != value and not key.startswith(_TIMED):
                line = journal.append("divergence", epoch=event.epoch, key=key, before=earlier, now=value)
        if event.is_last or event.epoch % trainer.config.train.figures_every == 0:
            files = self._write_figures(trainer, event.epoch, event.vectors)
            line = journal.append("figures", epoch=event.epoch, files=files)
        return line.n

    def _write_figures(self, trainer: Trainer, epoch: int, vectors: dict[str, list[float]]) -> list[str]:
        folder = self._directory.artifacts / "figures"
        paths = write_figures(trainer.evaluated_model, trainer.evaluator, folder, epoch, vectors)
        return [str(path.relative_to(self._directory.path)) for path in paths]

    def _checkpoint(self, trainer: Trainer, journal: JournalWriter, covers: int) -> None:
        path = save_checkpoint(self._directory, trainer.state_dict(), step=trainer.step, covers=covers)
        journal.append("checkpoint", step=trainer.step, epoch=trainer.epoch, file=path.name, covers=covers)

    def _conclude(self, trainer: Trainer, journal: JournalWriter) -> None:
        """Test the selected weights, write the artifacts and end the journal."""
        result = trainer.test()
        artifacts = write_artifacts(self._directory, trainer, result.vectors)
        journal.append(
            "result",
            metrics=result.metrics | self._curve_metrics(),
            vectors=result.vectors,
            verdict=asdict(result.verdict),
            best_epoch=result.best_epoch,
            best_value=result.best_value,
            epochs=trainer.epoch,
            parameters=sum(weight.numel() for weight in trainer.model.parameters()),
            artifacts=artifacts,
        )
        journal.append("end", status="done", failure=None, reason=None, traceback=None)

    def _curve_metrics(self) -> dict[str, float]:
        """Return what can be said of the whole learning curve, this attempt's and those it continues."""
        epochs = read_history(self._run).epochs
        roughness = curve_roughness([metrics["train/objective"] for _, metrics in sorted(epochs.items())])
        return {} if roughness is None else {"train/roughness": roughness}


def refuse_missing_gpu(place: Place, device: str) -> None:
    """Check that a promised GPU is there, unless `train.device` is the CPU.

    Raises:
        DeviceMissingError: torch sees none.
    """
    if place.gpus and device != "cpu" and not torch.cuda.is_available():
        raise DeviceMissingError(
            f"{place.words} on {host_name()} was promised a GPU and torch sees none; to train on the CPU "
            "there, set train.device: cpu"
        )


def _measured_before(run: RunDirectory, number: int, found: FoundCheckpoint | None) -> dict[tuple[int, str], float]:
    """Return what earlier attempts measured beyond the checkpoint that this one continues from."""
    first_epoch = found.state["epoch"] if found else 0
    return {
        (line.fields["epoch"], key): value
        for attempt in run.attempts()
        if attempt < number
        for line in read_journal(run.attempt(attempt).journal_file)
        if line.kind == "epoch" and line.fields["epoch"] > first_epoch
        for key, value in line.fields["metrics"].items()
    }


def _end_of(run: RunDirectory, attempt: int) -> str | None:
    """Return how an attempt ended as its journal has it: interrupted, failed, pruned or lost; None: there was none."""
    if attempt < 0:
        return None
    lines = read_journal(run.attempt(attempt).journal_file)
    if lines and lines[-1].kind == "end":
        return str(lines[-1].fields["status"])
    return "interrupted" if lines and lines[-1].kind == "interrupted" else "lost"


def _is_of_the_device(error: Exception) -> bool:
    """Return whether the accelerator itself failed, so that whatever this process asks of it next may fail too."""
    accelerator_error = getattr(torch, "AcceleratorError", None)  # torch >= 2.8; a plain RuntimeError before
    if accelerator_error is not None and isinstance(error, accelerator_error):
        return True
    return isinstance(error, RuntimeError) and _DEVICE_FAILED.match(str(error)) is not None


def _failure(error: Exception) -> dict[str, Any]:
    """Return the fields of the journal line that records why the run failed."""
    kinds: dict[type[Exception], str] = {
        TrainingDivergedError: "nan",
        torch.OutOfMemoryError: "oom",
        MemoryError: "oom",
        DataChangedError: "data",
        UserError: "data",
    }
    failure = next((name for kind, name in kinds.items() if isinstance(error, kind)), "exception")
    if any(words in str(error) for words in _FULL_MEMORY):
        failure = "oom"
    reason = str(error) or type(error).__name__
    return {"status": "failed", "failure": failure, "reason": reason, "traceback": traceback.format_exc()}
