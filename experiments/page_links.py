"""Where a study is found on the running web pages; their front pages take a visitor several clicks to it."""

import json
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

from experiments.study_files import study_identity
from tracking.mlflow_experiments import StudyIdentity
from tracking.mlflow_views import VIEW, shared_view
from tracking.run_directory import StudyDirectory

_MOST_EXPERIMENTS = 100  # of one name
_NEWEST = 5  # more addresses than this are not read
_OF_TRAINING = {"workflowType": "machine_learning"}  # else the pages open as those of a language model
_BEST_FIRST = {"orderByKey": "metrics.`test/elbo`", "orderByAsc": "false"}


def fetch(url: str) -> bytes:
    """Return what a server on this machine answers, past any proxy, which does not know this machine.

    Raises:
        OSError: no answer (a `urllib.error.URLError`), or a refusal (a `urllib.error.HTTPError`).
    """
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with direct.open(url, timeout=30) as answer:
        content: bytes = answer.read()
    return content


def study_links(root: Path, mlflow_url: str, dashboard_url: str) -> Iterator[tuple[str, str]]:
    """Yield (what, address) of the newest studies' pages: MLflow's flat list of runs, the dashboard's study."""
    files = sorted(root.glob("*/sweep.yaml"), key=lambda path: path.stat().st_mtime, reverse=True)
    summaries = _json(f"{dashboard_url}/api/studies")["study_summaries"]
    numbers = {study["study_name"]: study["study_id"] for study in summaries}
    for study in [StudyDirectory(path.parent) for path in files[:_NEWEST]]:
        name = study.path.name
        experiment = _experiment(mlflow_url, study_identity(study))
        if experiment is not None:
            has_view = any(tag["key"] in shared_view() for tag in experiment.get("tags", []))
            query = _OF_TRAINING | ({"viewStateShareKey": VIEW} if has_view else _BEST_FIRST)
            address = f"{mlflow_url}/#/experiments/{experiment['experiment_id']}/runs"
            yield f"{name} in MLflow", f"{address}?{urlencode(query, safe='/', quote_via=quote)}"
        if name in numbers:
            yield f"{name} in Optuna", f"{dashboard_url}/dashboard/studies/{numbers[name]}"


def _experiment(mlflow_url: str, study: StudyIdentity) -> dict[str, Any] | None:
    """Return the study's experiment; None where its folder is there and its pages are not."""
    query = urlencode({"filter": study.query, "max_results": _MOST_EXPERIMENTS})
    found = _json(f"{mlflow_url}/ajax-api/2.0/mlflow/experiments/search?{query}").get("experiments", [])
    return next((one for one in found if study.is_tagged({tag["key"]: tag["value"] for tag in one["tags"]})), None)


def _json(url: str) -> dict[str, Any]:
    answer: dict[str, Any] = json.loads(fetch(url))
    return answer
