"""Training as a generator of events: what to do at a step, an evaluation or an epoch is the caller's business.

Letters: B images of a micro-batch, N images of an effective batch, M latent dimensions.
"""

import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch

from vae_core.config import RunConfig
from vae_core.data.batches import Indices, effective_batches, epoch_order
from vae_core.data.dataset import Dataset
from vae_core.data.labels import label_mistakes
from vae_core.diagnostics import collapse_verdict
from vae_core.epoch_sums import EpochSums
from vae_core.errors import UserError
from vae_core.evaluation import EvaluationResult, Evaluator
from vae_core.events import Epoch, Evaluation, Event, Interrupted, Step, TestResult
from vae_core.learner import Learner, Moment
from vae_core.losses import effective_beta, normalised_beta
from vae_core.models.latent import LatentModel


class TrainingDivergedError(Exception):
    """A loss or a metric became NaN or infinite; the run itself is at fault and is not repeated."""


class DeviceMissingError(Exception):
    """The config asks for a device that this machine does not have."""


def resolve_device(name: str) -> torch.device:
    """Return the torch device for `train.device`.

    Raises:
        DeviceMissingError: `cuda` was asked for and there is none.
    """
    if name == "cuda" and not torch.cuda.is_available():
        raise DeviceMissingError("train.device: cuda was asked for, but torch sees no CUDA device on this machine")
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)


class Trainer:
    """Trains one model; after any event of `fit` its `state_dict` is exact.

    Args:
        config: the run's config.
        dataset: the prepared data set; its train split is learnt, its val split selects.
        pixel_budget: px of padded images per micro-batch; default `train.pixel_budget`.
        on_batch_evaluated: a sign of life from evaluations and figures, which last but yield no event.
    """

    def __init__(
        self,
        config: RunConfig,
        dataset: Dataset,
        pixel_budget: int | None = None,
        on_batch_evaluated: Callable[[], None] | None = None,
    ) -> None:
        torch.set_num_threads(config.train.threads)
        self.config = config
        self.dataset = dataset
        self.device = resolve_device(config.train.device)
        mistakes = list(label_mistakes(config, dataset))
        if mistakes:
            raise UserError(mistakes)
        budget = pixel_budget or config.train.pixel_budget
        self.learner = Learner(config, dataset, self.device, budget)
        self.evaluator = Evaluator(config, dataset, self.device, budget, on_batch_evaluated)
        self.epoch = 0
        self.step = 0
        self._train = dataset.splits["train"]
        if config.data.unlabelled == "drop":
            self._train = self._train[self.learner.labels[self._train] >= 0]
        self._steps_per_epoch = -(-len(self._train) // config.train.effective_batch)
        self._step_in_epoch = 0
        self._seconds = 0.0
        self._best: dict[str, Any] | None = None
        self._evaluations_since_best = 0
        self._max_active_units = 0
        self._stopped_early = False
        self._stop_requested = False

    @property
    def finished(self) -> bool:
        """Return whether every epoch is done or early stopping has ended the run."""
        return self._stopped_early or self.epoch >= self.config.train.epochs

    def request_stop(self) -> None:
        """Ask `fit` to end with `Interrupted` after the current optimizer step; safe in a signal handler."""
        self._stop_requested = True

    def fit(self) -> Iterator[Event]:
        """Train from the current state to the end, yielding events.

        Raises:
            TrainingDivergedError: an epoch's loss or an evaluation is not finite.
        """
        while not self.finished:
            started = time.monotonic() - self._seconds
            order = epoch_order(self.config.seed, self.epoch, self._train)
            for indices in effective_batches(order, self.config.train.effective_batch, self._step_in_epoch):
                self._take_step(indices)
                self._seconds = time.monotonic() - started
                yield Step(self.step, self.epoch, len(indices))
                if self._stop_requested:
                    yield Interrupted(self.step, self.epoch)
                    return
            result = self._evaluate() if self._evaluation_is_due() else None
            if result is not None:
                is_best = self._is_better(result)
                yield Evaluation(self.epoch + 1, self.step, result.metrics, result.vectors, is_best)
            yield self._finish_epoch(result, time.monotonic() - started)

    def test(self) -> TestResult:
        """Measure the best weights on the test split and judge them; training must be finished.

        Raises:
            RuntimeError: no evaluation has happened yet.
            TrainingDivergedError: a test metric is not finite.
        """
        model = self.best_model()
        best = self._best_so_far()
        result = self.evaluator.evaluate(model, "test", self.last_beta, sigma=best["sigma"])
        _refuse_non_finite(result.metrics, f"the test of epoch {best['epoch']}")
        verdict = collapse_verdict(
            active_units=int(result.metrics["test/active_units"]) if model.unit_prior else None,
            rate=result.metrics["test/kl"] if model.unit_prior else None,
            exchange_cost=result.metrics["test/exchange_cost"],
            max_active_units=self._max_active_units,
            latent_dim=self.config.model.latent_dim,
        )
        return TestResult(result.metrics, result.vectors, verdict, best["epoch"], best["value"], result.tags)

    def best_model(self) -> LatentModel:
        """Return a copy of the model with the weights that `evaluate.select` chose."""
        model = self.learner.new_model()
        model.load_state_dict(self._best_so_far()["model"])
        return model

    def state_dict(self) -> dict[str, Any]:
        """Return everything that the rest of the training depends on (plain containers and tensors)."""
        return {
            **self.learner.state_dict(),
            "epoch": self.epoch,
            "step": self.step,
            "step_in_epoch": self._step_in_epoch,
            "seconds": self._seconds,
            "best": self._best,
            "evaluations_since_best": self._evaluations_since_best,
            "max_active_units": self._max_active_units,
            "stopped_early": self._stopped_early,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a state that `state_dict` returned for the same config and data."""
        self.learner.load_state_dict(state)
        self.epoch = state["epoch"]
        self.step = state["step"]
        self._step_in_epoch = state["step_in_epoch"]
        self._seconds = state["seconds"]
        self._best = state["best"]
        self._evaluations_since_best = state["evaluations_since_best"]
        self._max_active_units = state["max_active_units"]
        self._stopped_early = state["stopped_early"]

    @property
    def last_beta(self) -> float:
        """Return the coefficient of the KL at the last optimizer step; waits for the device."""
        return self.learner.objective.beta(self._position(self._step_in_epoch - 1))

    @property
    def tags(self) -> dict[str, str]:
        """Return what a reader of the metrics must know: LPIPS measured or not, which weights, an ELBO or not."""
        return {"lpips": self.evaluator.lpips_tag, **self.learner.tags}

    @property
    def model(self) -> LatentModel:
        """Return the model that is trained."""
        return self.learner.model

    @property
    def evaluated_model(self) -> LatentModel:
        """Return the model that is evaluated, selected and drawn: the average of the weights where there is one."""
        return self.learner.evaluated_model

    def _take_step(self, indices: Indices) -> None:
        start, end = self._position(self._step_in_epoch), self._position(self._step_in_epoch + 1)
        self.learner.take_step(indices, Moment(self.step, self.epoch, start, end))
        self.step += 1
        self._step_in_epoch += 1

    def _position(self, step_in_epoch: int) -> float:
        """Return where optimizer step `step_in_epoch` of the current epoch starts, in epochs."""
        return self.epoch + step_in_epoch / self._steps_per_epoch

    def _evaluation_is_due(self) -> bool:
        done = self.epoch + 1
        return done % self.config.evaluate.every_epochs == 0 or done >= self.config.train.epochs

    def _evaluate(self) -> EvaluationResult:
        result = self.evaluator.evaluate(
            self.evaluated_model,
            "val",
            self.last_beta,
            sigma=self.learner.objective.scale(),
        )
        _refuse_non_finite(result.metrics, f"the evaluation after epoch {self.epoch + 1}")
        return result

    def _is_better(self, result: EvaluationResult) -> bool:
        if self._best is None:
            return True
        value, best = result.metrics[self.config.evaluate.select], self._best["value"]
        return bool(value > best if self.config.evaluate.higher_is_better else value < best)

    def _finish_epoch(self, result: EvaluationResult | None, seconds: float) -> Epoch:
        """Advance the state to the next epoch and describe the one that ended."""
        metrics = self._train_metrics(seconds)
        _refuse_non_finite(metrics, f"epoch {self.epoch + 1}")
        self.epoch += 1
        if result is not None:
            metrics |= result.metrics
            self._remember(result)
        self._step_in_epoch = 0
        self._seconds = 0.0
        self.learner.sums = EpochSums(self.device)
        vectors = result.vectors if result is not None else {}
        return Epoch(self.epoch, self.step, metrics, vectors, seconds, self.finished)

    def _remember(self, result: EvaluationResult) -> None:
        """Update the best weights, the learning rate and early stopping with an evaluation."""
        value = result.metrics[self.config.evaluate.select]
        if self._is_better(result):
            weights = {name: tensor.detach().clone() for name, tensor in self.evaluated_model.state_dict().items()}
            self._best = {
                "epoch": self.epoch,
                "value": value,
                "sigma": self.learner.objective.scale(),
                "model": weights,
            }
            self._evaluations_since_best = 0
        else:
            self._evaluations_since_best += 1
        self._max_active_units = max(self._max_active_units, int(result.metrics["latent/active_units"]))
        self.learner.observe(value)
        patience = self.config.train.early_stopping_patience
        self._stopped_early = patience is not None and self._evaluations_since_best >= patience

    def _train_metrics(self, seconds: float) -> dict[str, float]:
        means = self.learner.sums.means()
        scheduled = self.learner.objective.scheduled_beta(self._position(self._step_in_epoch - 1))
        beta = means.get("train/effective_beta", effective_beta(scheduled))  # a mean where a KL control moves it
        pixels = float(np.prod(self.dataset.sizes[self._train], axis=1).mean()) * self.dataset.channels
        return means | {
            "train/effective_beta": beta,
            "train/normalised_beta": normalised_beta(beta, self.learner.mean_latent_size(self._train), pixels),
            "train/lr": self.learner.lr,
            "time/epoch_s": seconds,
            "time/images_per_s": len(self._train) / seconds,
        }

    def _best_so_far(self) -> dict[str, Any]:
        if self._best is None:
            raise RuntimeError("there are no best weights before the first evaluation")
        return self._best


def _refuse_non_finite(metrics: dict[str, float], place: str) -> None:
    bad = [f"{name} = {value}" for name, value in metrics.items() if not np.isfinite(value)]
    if bad:
        raise TrainingDivergedError(f"{place} is not finite: {', '.join(bad)}; lower optim.lr or set optim.clip_norm")
