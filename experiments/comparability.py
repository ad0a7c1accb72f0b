"""Which numbers of a study may be ranked at all."""

import math

from experiments.columns import MUTUAL_INFORMATION
from experiments.results import CellResult, StudyResults

DIFFERENT_IMAGES = "cells see different images"  # why something that ranks cells is left out
_RELATIVE = ("elbo", "reconstruction", "elbo_per_pixel", "scale")  # to the evaluation likelihood


def is_comparable(results: StudyResults, key: str) -> bool:
    """Return whether cells may be ranked by a metric.

    They may not where they see different images, by ELBOs of different evaluation likelihoods or families, and by the
    training objective, which is each cell's own, or how rough its curve is.
    """
    name = key.partition("/")[2]
    if name in ("objective", "roughness"):
        return not results.is_swept("loss") and comparable(results)
    return comparable(results) if name in _RELATIVE else results.one_data_set


def comparable(results: StudyResults) -> bool:
    """Return whether the cells' ELBOs are nats of one likelihood on the same images, and mean the same."""
    one_likelihood = not any(results.is_swept(path) for path in ("evaluate.likelihood", "evaluate.scale_images"))
    return one_likelihood and results.one_data_set and len(results.bounds) <= 1


def most_information(results: StudyResults) -> float | None:
    """Return the largest mutual information that can be measured, nats: ln N; None where N is not one number."""
    count = results.data.get("splits", {}).get("test", {}).get("images")
    return None if count is None or not results.one_data_set else math.log(count)


def is_saturated(results: StudyResults, cell: CellResult) -> bool:
    """Return whether a run of the cell has a mutual information within 1 nat of the largest: it may be larger."""
    most = most_information(results)
    return most is not None and any(found > most - 1 for found in cell.values(MUTUAL_INFORMATION))
