"""Where a study is found on the running web pages; their front pages take a visitor several clicks to it."""

import json
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.parse import quote, urlencode

from tracking.mlflow_views import VIEW, shared_view

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
    for name in [path.parent.name for path in files[:_NEWEST]]:
        experiment = _experiment(mlflow_url, name)
        if experiment is not None:
            has_view = any(tag["key"] in shared_view() for tag in experiment.get("tags", []))
            query = _OF_TRAINING | ({"viewStateShareKey": VIEW} if has_view else _BEST_FIRST)
            address = f"{mlflow_url}/#/experiments/{experiment['experiment_id']}/runs"
            yield f"{name} in MLflow", f"{address}?{urlencode(query, safe='/', quote_via=quote)}"
        if name in numbers:
            yield f"{name} in Optuna", f"{dashboard_url}/dashboard/studies/{numbers[name]}"


def _experiment(mlflow_url: str, name: str) -> dict[str, Any] | None:
    url = f"{mlflow_url}/ajax-api/2.0/mlflow/experiments/get-by-name?experiment_name={quote(name)}"
    try:
        found: dict[str, Any] = _json(url)["experiment"]
    except HTTPError:
        return None  # its folder is there, its pages are not
    return found


def _json(url: str) -> dict[str, Any]:
    answer: dict[str, Any] = json.loads(fetch(url))
    return answer
