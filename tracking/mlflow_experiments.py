"""Which experiment of an MLflow store is a study's: found again whatever people call it, and never a namesake's."""

import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Experiment

TAG = "vae_sweep."
_STUDY, _STUDY_ID = f"{TAG}study", f"{TAG}study_id"
_PAGE = 1000


@dataclass(frozen=True)
class StudyIdentity:
    """A study as a store that many people share knows it.

    Attributes:
        name: the study's name, which its experiment has too where no other study has taken it.
        id: tells it from its namesakes; None: a study from before there were ids, or whose provenance was lost.
    """

    name: str
    id: str | None = None

    @property
    def names(self) -> list[str]:
        """Return the names that its experiment may be made with, the first choice first."""
        return [self.name, f"{self.name}-{self.id[:8] if self.id else 'without-id'}"]

    @property
    def tags(self) -> dict[str, str]:
        """Return the tags of its experiment."""
        return {_STUDY: self.name} | ({_STUDY_ID: self.id} if self.id else {})

    @property
    def query(self) -> str:
        """Return what finds its experiment by its tags."""
        return " AND ".join(f"tags.`{key}` = '{value}'" for key, value in self.tags.items())

    def is_tagged(self, tags: Mapping[str, str]) -> bool:
        """Return whether an experiment with these tags can be this study's."""
        return tags.get(_STUDY_ID) == self.id


def find_experiment(client: "MlflowClient", study: StudyIdentity) -> "Experiment | None":
    """Return a study's experiment, also a deleted one, and one that was renamed on its page; None: there is none."""
    from mlflow.entities import ViewType

    named = (client.get_experiment_by_name(name) for name in study.names)
    known = next((found for found in named if found is not None and study.is_tagged(found.tags)), None)
    if known is not None:
        return known
    renamed = client.search_experiments(ViewType.ACTIVE_ONLY, filter_string=study.query)
    return next((found for found in renamed if study.is_tagged(found.tags)), None)


def ensure_experiment(
    client: "MlflowClient", study: StudyIdentity, artifact_root: Path | None, tags: dict[str, str]
) -> str:
    """Return the id of a study's experiment, made if it is missing.

    Args:
        client: of the store.
        study: whose experiment.
        artifact_root: its artifacts go into a folder of its name there; None: where the server puts them.
        tags: to be added where they are missing.
    """
    found = find_experiment(client, study)
    if found is None:
        free = [name for name in study.names if client.get_experiment_by_name(name) is None]
        name = (free or study.names)[0]
        place = (artifact_root / name).as_uri() if artifact_root else None
        return str(client.create_experiment(name, place, study.tags | tags))
    if found.lifecycle_stage == "deleted":  # in the web page, say; the name stays taken
        client.restore_experiment(found.experiment_id)
    for key, value in (study.tags | tags).items():
        if key not in found.tags:
            client.set_experiment_tag(found.experiment_id, key, value)
    return str(found.experiment_id)


def delete_experiment(client: "MlflowClient", study: StudyIdentity) -> str | None:
    """Remove a study's experiment and its runs, and return where its artifacts are; None: there is no experiment.

    A server can only hide an experiment, so there its name is freed first.
    """
    experiment = find_experiment(client, study)
    if experiment is None:
        return None
    place = str(experiment.artifact_location)
    store = client._tracking_client.store
    active = experiment.lifecycle_stage == "active"
    if not hasattr(store, "_hard_delete_experiment"):
        client.rename_experiment(experiment.experiment_id, f"{experiment.name} (deleted {uuid.uuid4().hex[:8]})")
        client.delete_experiment(experiment.experiment_id)
        return place
    for run_id in _all_run_ids(client, experiment.experiment_id):  # as `mlflow gc` does it
        store._hard_delete_run(run_id)
    if active:
        client.delete_experiment(experiment.experiment_id)
    store._hard_delete_experiment(experiment.experiment_id)
    return place


def _all_run_ids(client: "MlflowClient", experiment_id: str) -> list[str]:
    from mlflow.entities import ViewType

    ids: list[str] = []
    token: str | None = None
    while token is not None or not ids:
        page = client.search_runs([experiment_id], run_view_type=ViewType.ALL, max_results=_PAGE, page_token=token)
        ids += [run.info.run_id for run in page]
        token = page.token
        if not token:
            break
    return ids
