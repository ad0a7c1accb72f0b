"""How much each axis of a search matters."""

import math
import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from experiments.table import plain

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

Point = tuple[Mapping[str, Any], float]  # dotted path -> swept value, and the metric there


def ped_anova(space: Mapping[str, Any], points: Sequence[Point], quantile: float, higher: bool) -> dict[str, float]:
    """Return axis -> its share in reaching the best `quantile` of the points, the largest first; they add up to 1.

    Source: Watanabe et al., PED-ANOVA: efficiently quantifying hyperparameter importance in arbitrary subspaces,
    IJCAI 2023, as Optuna has it.

    Args:
        space: dotted path -> list of values, or a mapping with low and high.
        points: of which not all have the same value.
        quantile: in (0, 1).
        higher: whether higher values are better.
    """
    import optuna

    distributions = {path: _distribution(path, axis, points) for path, axis in space.items()}
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            study = optuna.create_study(direction="maximize" if higher else "minimize")
            study.add_trials(
                optuna.trial.create_trial(
                    params={path: _choice(params[path], distributions[path]) for path in space},
                    distributions=distributions,
                    value=value,
                )
                for params, value in points
            )
            evaluator = optuna.importance.PedAnovaImportanceEvaluator(target_quantile=quantile)
            shares = optuna.importance.get_param_importances(study, evaluator=evaluator)
    finally:
        optuna.logging.set_verbosity(before)
    known = {path: float(share) for path, share in shares.items() if math.isfinite(share)}
    return dict(sorted(known.items(), key=lambda item: (-item[1], item[0])))


def _distribution(path: str, axis: Any, points: Sequence[Point]) -> "BaseDistribution":
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    values = [params[path] for params, _ in points]
    if not isinstance(axis, Mapping):
        return CategoricalDistribution(sorted({plain(value) for value in values}))
    low, high, is_log = min(*values, axis["low"]), max(*values, axis["high"]), bool(axis.get("log"))
    if all(isinstance(value, int) for value in (*values, low, high)):
        return IntDistribution(int(low), int(high), log=is_log)
    return FloatDistribution(float(low), float(high), log=is_log)


def _choice(value: Any, distribution: "BaseDistribution") -> Any:
    from optuna.distributions import CategoricalDistribution

    return plain(value) if isinstance(distribution, CategoricalDistribution) else value
