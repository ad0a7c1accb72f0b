"""How MLflow's table of runs first looks: a shared view, which MLflow keeps as a tag of the experiment.

Without one the table shows the times of runs and, out of sight, all metrics in the order of their names.
"""

import json

VIEW = "vae_sweep"  # the address of the table ends with `viewStateShareKey=vae_sweep`
_BEST_FIRST = "metrics.`test/elbo`"
_METRICS = ("elbo", "kl", "ssim", "active_units")  # more would push the verdict out of sight


def shared_view() -> dict[str, str]:
    """Return the experiment's tag: the best runs first, their verdict and what the ablation table shows of them."""
    columns = ["tags.`vae_sweep.verdict`", *(f"metrics.`test/{name}`" for name in _METRICS)]
    state = {"orderByKey": _BEST_FIRST, "orderByAsc": False, "selectedColumns": columns}
    return {f"mlflow.sharedViewState.{VIEW}": json.dumps(state)}
