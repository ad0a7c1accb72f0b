"""Which numbers of a study may be ranked at all."""

from experiments.results import StudyResults

DIFFERENT_IMAGES = "cells see different images"  # why something that ranks cells is left out
_RELATIVE = ("elbo", "reconstruction", "elbo_per_pixel", "scale")  # to the evaluation likelihood


def is_comparable(results: StudyResults, key: str) -> bool:
    """Return whether cells may be ranked by a metric.

    They may not where they see different images, by ELBOs of different evaluation likelihoods or families, and by the
    training objective, which is each cell's own.
    """
    name = key.partition("/")[2]
    if name == "objective":
        return not results.is_swept("loss") and comparable(results)
    return comparable(results) if name in _RELATIVE else results.one_data_set


def comparable(results: StudyResults) -> bool:
    """Return whether the cells' ELBOs are nats of one likelihood on the same images, and mean the same."""
    one_likelihood = not any(results.is_swept(path) for path in ("evaluate.likelihood", "evaluate.scale_images"))
    return one_likelihood and results.one_data_set and len(results.bounds) <= 1
