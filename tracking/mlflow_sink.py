"""One study's view in MLflow, replayed from the run directories, each value once.

MLflow is a view: whatever it refuses becomes a sentence in a `ForwardReport`, and a later call tries again.
"""

import shutil
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tracking import mlflow_store as store
from tracking.mlflow_address import shown_reason, shown_uri
from tracking.mlflow_experiments import (
    TAG,
    StudyIdentity,
    delete_experiment,
    ensure_experiment,
    find_experiment,
)
from tracking.mlflow_files import KnownRun, send_files, upload
from tracking.mlflow_views import shared_view
from tracking.replay import (
    MetricRow,
    Upload,
    covered,
    gpu_hours,
    metric_rows,
    run_name,
    run_tags,
    uploads,
    words,
)
from tracking.run_directory import ChainLine, RunDirectory, read_chain

if TYPE_CHECKING:
    from mlflow import MlflowClient

_STATES = {"FINISHED": "done", "FAILED": "failed", "KILLED": "killed", "RUNNING": "running"}
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 1.0, 60.0
_DESCRIPTION = "mlflow.note.content"
_OF_TRAINING = {"mlflow.experimentKind": "custom_model_development"}  # else its pages open as those of a language model
LONGEST_DESCRIPTION = 8000  # characters of a tag
_PASSING = ("failure", "slurm_job", "node", "device_name", "driver", "verdict", "verdict_because")  # may cease to hold


@dataclass(frozen=True)
class ForwardReport:
    """What a call achieved; `complete`: MLflow has the run to its end; `problem`: what went wrong."""

    mlflow_run_id: str | None = None
    metrics_sent: int = 0
    files_sent: int = 0
    complete: bool = False
    problem: str | None = None


@dataclass
class _View:
    """What is known of the store; dropped whole whenever a call was refused or the store was replaced."""

    client: "MlflowClient | None" = None
    file: tuple[int, int] | None = None
    experiment_id: str | None = None
    parent: KnownRun | None = None
    runs: dict[str, KnownRun] = field(default_factory=dict)
    forwarded: dict[str, tuple[object, ForwardReport]] = field(default_factory=dict)


class MlflowSink:
    """A study in MLflow: an experiment, a parent run for the sweep, a nested run per (trial, seed).

    Args:
        uri: an MLflow tracking URI, `sqlite:////absolute/path/mlflow.db` or `http://...`.
        artifact_root: folder of the artifacts, or None to leave their place to the server behind `uri`.
        study: its experiment's name, and what tells it from others of that name.
        question: what the sweep asks; becomes the experiment's and the parent run's description.
        clock: monotonic seconds, for the pauses between failed contacts.
    """

    def __init__(
        self,
        uri: str,
        artifact_root: Path | None,
        study: StudyIdentity,
        question: str,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._uri, self._study, self._question = uri, study, question
        self._artifacts = None if artifact_root is None else artifact_root.resolve()
        self._clock = clock
        self._pause_s, self._retry_at, self._problem = 0.0, float("-inf"), ""
        self.refusal: str | None = None  # what MLflow answered last, where that was no
        self._parent_tags: dict[str, str] = {}
        self._parent_params: dict[str, str] = {}
        self._parent_start_ms: int | None = None
        self._view = _View()

    def ensure_parent(
        self,
        tags: Mapping[str, object],
        params: Mapping[str, object] | None = None,
        start_ms: int | None = None,
    ) -> ForwardReport:
        """Find or create the sweep's run and mark it as running.

        Args:
            tags: named without the prefix, None left out; `commit` and `dirty` go to every nested run too.
            params: of the sweep, such as its base config.
            start_ms: when the study began, ms since 1970; default now.
        """
        self._parent_tags = words(tags)
        self._parent_params = words(params or {})
        self._parent_start_ms = start_ms
        self._view.parent = None

        def open_parent(client: "MlflowClient") -> ForwardReport:
            parent = self._parent_run(client)
            _show(client, parent, "RUNNING", None, {})
            return ForwardReport(parent.id)

        return self._contact(open_parent)

    def forward(self, run: RunDirectory, info: Mapping[str, Any], *, final_status: str | None = None) -> ForwardReport:
        """Send what MLflow lacks of a run: while it is open what no crash can undo, at its end everything.

        Args:
            run: its folder.
            info: `trial`, `seed`, `cell` and `params` (dotted path to swept value), as in run.json.
            final_status: FINISHED, FAILED or KILLED once the run has ended, else None.
        """
        seen = (final_status, _sizes(run), store.file_identity(self._uri))
        before = self._view.forwarded.get(run.id)
        if before is not None and before[0] == seen:
            return before[1]
        report = self._contact(lambda client: self._forward(client, run, info, final_status))
        if report.problem is None:
            self._view.forwarded[run.id] = (seen, report)
        return report

    def find(self, run: RunDirectory) -> ForwardReport:
        """Return MLflow's id of a run, None where it has none; nothing is sent."""

        def look(client: "MlflowClient") -> ForwardReport:
            known = find_experiment(client, self._study)
            tags = _prefixed({"run_id": run.id})
            return ForwardReport(store.find(client, known.experiment_id, tags) if known else None)

        return self._contact(look)

    @property
    def uri(self) -> str:
        """Return the tracking URI, which may hold a password."""
        return self._uri

    @property
    def wait_s(self) -> float:
        """Return the s until the store is asked again; 0 unless it has refused."""
        return max(0.0, self._retry_at - self._clock())

    def log_parent(
        self, metrics: Mapping[str, float], artifacts: Mapping[str, Path], description: str = ""
    ) -> ForwardReport:
        """Put the sweep's own numbers and files (name in MLflow to local file) on the parent run.

        A number that is as it was in the last call is not sent again; a changed one gets the next step.

        Args:
            metrics: name to number.
            artifacts: name in MLflow to local file.
            description: Markdown for the run's page, at most `LONGEST_DESCRIPTION` characters; "" leaves what is there.
        """

        def log(client: "MlflowClient") -> ForwardReport:
            parent = self._parent_run(client)
            now_ms = time.time_ns() // 1_000_000
            rows = [
                MetricRow(key, value, _next_step(parent, key), now_ms)
                for key, value in metrics.items()
                if parent.latest.get(key) != value
            ]
            sent = store.send_metrics(client, parent, rows)
            sent_files = 0
            for name, path in artifacts.items():
                parent.files.pop(name, None)  # a table may change and keep its size
                parent.verified.discard(name)
                sent_files += upload(client, parent, Upload(path, name))
            if description:
                store.send_tags(client, parent, {_DESCRIPTION: description})
            return ForwardReport(parent.id, sent, sent_files)

        return self._contact(log)

    def finish_parent(self, status: str, end_ms: int | None = None) -> ForwardReport:
        """Give the parent run its final status: FINISHED, FAILED or KILLED."""

        def finish(client: "MlflowClient") -> ForwardReport:
            parent = self._parent_run(client)
            _show(client, parent, status, end_ms, {})
            return ForwardReport(parent.id, complete=True)

        return self._contact(finish)

    def delete_study(self) -> ForwardReport:
        """Remove the study's experiment, runs and artifacts, so that they can be made anew."""

        def delete(client: "MlflowClient") -> ForwardReport:
            place = delete_experiment(client, self._study)
            if self._artifacts is not None and place is not None:
                folder = self._artifacts / Path(place).name
                if folder.exists():
                    shutil.rmtree(folder)
            self._view = _View()
            return ForwardReport(complete=True)

        return self._contact(delete)

    def _contact(self, work: Callable[["MlflowClient"], ForwardReport]) -> ForwardReport:
        """Do `work`: the one place where the refusals of MLflow, its database and its files end up."""
        if self._clock() < self._retry_at:
            return ForwardReport(problem=self._problem)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # MLflow's own imports warn
            try:
                report = work(self._connected())
            except store.refusals() as error:
                return self._refused(error)
        self._pause_s, self.refusal = 0.0, None
        return report

    def _refused(self, error: Exception) -> ForwardReport:
        self._view = _View()  # how much of the broken call arrived has to be asked
        self._pause_s = min(max(2 * self._pause_s, _FIRST_PAUSE_S), _LONGEST_PAUSE_S)
        self._retry_at = self._clock() + self._pause_s
        self.refusal = f"MLflow at {shown_uri(self._uri)}: {shown_reason(error, self._uri)}"
        self._problem = f"{self.refusal}; training goes on, the next attempt is in {self._pause_s:.0f} s"
        return ForwardReport(problem=self._problem)

    def _connected(self) -> "MlflowClient":
        if self._view.client is None or store.file_identity(self._uri) != self._view.file:
            self._view = _View()
            self._view.client = store.connect(self._uri)
            self._view.file = store.file_identity(self._uri)
        return self._view.client

    def _experiment(self, client: "MlflowClient") -> str:
        if self._view.experiment_id is None:
            tags = {_DESCRIPTION: self._question} | _OF_TRAINING | shared_view()
            self._view.experiment_id = ensure_experiment(client, self._study, self._artifacts, tags)
        return self._view.experiment_id

    def _parent_run(self, client: "MlflowClient") -> KnownRun:
        if self._view.parent is None:
            tags = self._common_tags() | _prefixed(self._parent_tags)
            parent = store.find_or_create(
                client,
                self._experiment(client),
                _prefixed({"kind": "sweep"}),
                self._study.name,
                tags | {_DESCRIPTION: self._question},
                self._parent_start_ms,
            )
            store.ask_contents(client, parent)
            store.send_params(client, parent, self._parent_params)
            store.send_tags(client, parent, tags)
            self._view.parent = parent
        return self._view.parent

    def _common_tags(self) -> dict[str, str]:
        tags = {"study": self._study.name}
        tags |= {name: self._parent_tags[name] for name in ("commit", "dirty") if name in self._parent_tags}
        mlflow_own = {"mlflow.source.name": "vae-sweep", "mlflow.source.type": "LOCAL"}
        own_names = {"commit": "mlflow.source.git.commit", "user": "mlflow.user"}
        mlflow_own |= {
            theirs: self._parent_tags[name] for name, theirs in own_names.items() if name in self._parent_tags
        }
        return mlflow_own | _prefixed(tags)

    def _forward(
        self, client: "MlflowClient", run: RunDirectory, info: Mapping[str, Any], final_status: str | None
    ) -> ForwardReport:
        chain = read_chain(run)
        if not chain and final_status is None:
            return ForwardReport()
        known = self._known_run(client, run, info, chain)
        end = f"{final_status} {chain[-1].attempt}:{chain[-1].line.n}" if chain else f"{final_status}"
        if known.status == final_status and known.tags.get(f"{TAG}forwarded") == end:
            return ForwardReport(known.id, complete=True)  # by an earlier sink
        store.ask_contents(client, known)
        has_ended = bool(chain) and chain[-1].line.kind == "end"  # else the next attempt goes on from a checkpoint
        part = chain if final_status and has_ended else covered(chain)
        sent = store.send_metrics(client, known, metric_rows(part))
        files, missing = send_files(client, known, uploads(run, part))
        tags = run_tags(chain)
        if final_status != "FAILED":  # an attempt failed, but the run may yet succeed
            tags.pop("failure", None)
        for name in _PASSING:
            if name not in tags:
                store.remove_tag(client, known, f"{TAG}{name}")
        if final_status:
            tags["forwarded"] = end
            if "verdict" in tags and _DESCRIPTION not in known.tags:
                words = f"Posterior collapse: {tags['verdict']} ({tags['verdict_because']})"
                store.send_tags(client, known, {_DESCRIPTION: words})
            if hours := gpu_hours(run):
                tags["gpu_hours"] = f"{hours:.4f}"
        _show(client, known, final_status or "RUNNING", chain[-1].line.time_ms if chain else None, tags)
        problem = f"run {run.id}: not found and not in MLflow: {', '.join(missing)}" if missing else None
        return ForwardReport(known.id, sent, files, final_status is not None, problem)

    def _known_run(
        self, client: "MlflowClient", run: RunDirectory, info: Mapping[str, Any], chain: list[ChainLine]
    ) -> KnownRun:
        if run.id not in self._view.runs:
            tags = self._common_tags() | {"mlflow.parentRunId": self._parent_run(client).id}
            tags |= _prefixed({"kind": "run"} | words({name: info[name] for name in ("trial", "seed", "cell")}))
            params = words(dict(info["params"]) | {"seed": info["seed"]})
            known = store.find_or_create(
                client,
                self._experiment(client),
                _prefixed({"run_id": run.id}),
                run_name(info["cell"], info["params"], info["seed"]),
                tags,
                chain[0].line.time_ms if chain else None,
            )
            store.send_params(client, known, params)
            store.send_tags(client, known, tags)
            if info.get("data_fingerprint"):
                store.send_dataset(client, known, info["data_fingerprint"], info.get("data") or {})
            self._view.runs[run.id] = known
        return self._view.runs[run.id]


def _show(client: "MlflowClient", run: KnownRun, status: str, end_ms: int | None, tags: Mapping[str, str]) -> None:
    """Set the run's tags, its state among them, then its status: whoever sees the status finds the rest."""
    store.send_tags(client, run, _prefixed({**tags, "state": _STATES[status]}))
    store.set_status(client, run, status, end_ms)


def _prefixed(tags: Mapping[str, str]) -> dict[str, str]:
    return {f"{TAG}{name}": value for name, value in tags.items()}


def _next_step(run: KnownRun, key: str) -> int:
    return max((step for name, step in run.rows if name == key), default=-1) + 1


def _sizes(run: RunDirectory) -> list[tuple[int, int]]:
    """Return (attempt, bytes of its journal): unchanged as long as nothing was appended."""
    files = [(number, run.attempt(number).journal_file) for number in run.attempts()]
    return [(number, file.stat().st_size) for number, file in files if file.exists()]
