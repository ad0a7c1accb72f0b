"""Training as a generator of events: what to do at a step, an evaluation or an epoch is the caller's business.

Letters: B images of a micro-batch, N images of an effective batch, M latent dimensions.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from vae_core.adversary import Adversary, NoAdversary, build_adversary
from vae_core.config import RunConfig
from vae_core.data.augment import augmenter_of
from vae_core.data.batches import (
    Batch,
    Indices,
    Reader,
    effective_batches,
    epoch_order,
    load_batch,
    micro_batches,
    padded_size,
    padding_multiple,
)
from vae_core.data.dataset import Dataset
from vae_core.data.labels import label_mistakes, visible_labels
from vae_core.diagnostics import Verdict, collapse_verdict
from vae_core.errors import UserError
from vae_core.evaluation import EvaluationResult, Evaluator
from vae_core.losses import Objective, effective_beta, normalised_beta
from vae_core.mixup import Mixing, between, mixed, plan_mixing
from vae_core.models.latent import LatentModel
from vae_core.models.vae import build_model
from vae_core.objective import TrainingObjective
from vae_core.optimisation import Optimisation, WeightAverage
from vae_core.random_streams import generator

_HIGHER_IS_BETTER = {
    "val/elbo": True,
    "val/ssim": True,
    "val/mse": False,
    "val/lpips": False,
    "val/objective": False,
}
_AMP_TYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Step:
    """An optimizer step was taken; `step` counts from 1 over the run, `epoch` is the number of finished epochs."""

    step: int
    epoch: int
    images: int


@dataclass(frozen=True)
class Evaluation:
    """The validation split was measured after epoch number `epoch` (from 1)."""

    epoch: int
    step: int
    metrics: dict[str, float]
    vectors: dict[str, list[float]]
    is_best: bool


@dataclass(frozen=True)
class Epoch:
    """Epoch number `epoch` (from 1) is finished; `metrics` holds train/, time/ and, where due, val/ and latent/."""

    epoch: int
    step: int
    metrics: dict[str, float]
    vectors: dict[str, list[float]]
    seconds: float
    is_last: bool


@dataclass(frozen=True)
class Interrupted:
    """Training stopped between two optimizer steps because `request_stop` was called."""

    step: int
    epoch: int


Event = Step | Evaluation | Epoch | Interrupted


@dataclass(frozen=True)
class TestResult:
    """The val-selected weights measured on the test split."""

    metrics: dict[str, float]
    vectors: dict[str, list[float]]
    verdict: Verdict
    best_epoch: int
    best_value: float
    tags: dict[str, str]


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
        self.model = self._new_model()
        self._pixel_budget = pixel_budget or config.train.pixel_budget
        self.evaluator = Evaluator(config, dataset, self.device, self._pixel_budget, on_batch_evaluated)
        self.epoch = 0
        self.step = 0
        self._multiple = padding_multiple(config.model.stride, config.data.pad_multiple)
        self._labels = visible_labels(dataset, fraction=config.data.labelled_fraction, seed=config.data.split_seed)
        self._train = dataset.splits["train"]
        if config.data.unlabelled == "drop":
            self._train = self._train[self._labels[self._train] >= 0]
        self._augmenter = augmenter_of(config.data.augment)
        self._steps_per_epoch = -(-len(self._train) // config.train.effective_batch)
        self._scaler = torch.amp.GradScaler(self.device.type, enabled=config.train.amp == "fp16")
        self._objective = TrainingObjective(
            config.loss,
            epochs=config.train.epochs,
            latent_dim=self.model.latent_dim,
            smallest_side=int(dataset.sizes.min()),
            device=self.device,
        )
        self._optimisation = Optimisation(
            self.model.parameters(),
            config.optim,
            undecayed=self._objective.parameters(),
            epochs=config.train.epochs,
            higher_is_better=_HIGHER_IS_BETTER[config.evaluate.select],
            scaler=self._scaler,
        )
        self._adversary = self._build_adversary()
        self._average = self._weight_average()
        self._step_in_epoch = 0
        self._sums = _RunningSums(self.device)
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
        result = self.evaluator.evaluate(model, "test", self.final_beta, sigma=best["sigma"])
        _refuse_non_finite(result.metrics, f"the test of epoch {best['epoch']}")
        verdict = collapse_verdict(
            active_units=int(result.metrics["test/active_units"]),
            rate=result.metrics["test/kl"] if model.has_prior else None,
            exchange_cost=result.metrics["test/exchange_cost"],
            max_active_units=self._max_active_units,
            latent_dim=self.config.model.latent_dim,
        )
        return TestResult(result.metrics, result.vectors, verdict, best["epoch"], best["value"], result.tags)

    def best_model(self) -> LatentModel:
        """Return a copy of the model with the weights that `evaluate.select` chose."""
        model = self._new_model()
        model.load_state_dict(self._best_so_far()["model"])
        return model

    def state_dict(self) -> dict[str, Any]:
        """Return everything that the rest of the training depends on (plain containers and tensors)."""
        return {
            "model": self.model.state_dict(),
            "optimisation": self._optimisation.state_dict(),
            "objective": self._objective.state_dict(),
            "adversary": self._adversary.state_dict(),
            "average": self._average.model.state_dict() if self._average else None,
            "scaler": self._scaler.state_dict(),
            "epoch": self.epoch,
            "step": self.step,
            "step_in_epoch": self._step_in_epoch,
            "sums": self._sums.state_dict(),
            "seconds": self._seconds,
            "best": self._best,
            "evaluations_since_best": self._evaluations_since_best,
            "max_active_units": self._max_active_units,
            "stopped_early": self._stopped_early,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a state that `state_dict` returned for the same config and data."""
        self.model.load_state_dict(state["model"])
        self._optimisation.load_state_dict(state["optimisation"])
        self._objective.load_state_dict(state["objective"])
        self._adversary.load_state_dict(state["adversary"])
        if self._average:
            self._average.model.load_state_dict(state["average"])
        self._scaler.load_state_dict(state["scaler"])
        self.epoch = state["epoch"]
        self.step = state["step"]
        self._step_in_epoch = state["step_in_epoch"]
        self._sums.load_state_dict(state["sums"])
        self._seconds = state["seconds"]
        self._best = state["best"]
        self._evaluations_since_best = state["evaluations_since_best"]
        self._max_active_units = state["max_active_units"]
        self._stopped_early = state["stopped_early"]

    @property
    def final_beta(self) -> float:
        """Return the coefficient of the KL that the training ends with."""
        return self._objective.final_beta

    @property
    def tags(self) -> dict[str, str]:
        """Return what a reader of the metrics must know: LPIPS measured or not, which weights, an ELBO or not."""
        decay = self.config.optim.ema_decay
        weights = "last step" if decay is None else f"exponential average, decay {decay:g} per step"
        tags = {"lpips": self.evaluator.lpips_tag, "weights": weights}
        if not self.model.has_prior:
            tags["elbo"] = f"no bound but -reconstruction: family {self.config.model.family} has no prior"
        if self.model.classes:
            tags["elbo"] = "conditional on the label"
        return tags

    @property
    def evaluated_model(self) -> LatentModel:
        """Return the model that is evaluated, selected and drawn: the average of the weights where there is one."""
        return self._average.model if self._average else self.model

    def _build_adversary(self) -> Adversary:
        if not self.model.has_adversary:
            return NoAdversary()
        return build_adversary(
            self.config,
            channels=self.dataset.channels,
            device=self.device,
            higher_is_better=_HIGHER_IS_BETTER[self.config.evaluate.select],
            scaler=self._scaler,
            autocast=self._autocast,
        )

    def _weight_average(self) -> WeightAverage[LatentModel] | None:
        if self.config.optim.ema_decay is None:
            return None
        return WeightAverage(self._new_model(), self.config.optim.ema_decay)

    def _new_model(self) -> LatentModel:
        classes = len(self.dataset.label_names)
        return build_model(self.config.model, self.dataset.channels, self.config.seed, self.device, classes)

    def _position(self, step_in_epoch: int) -> float:
        """Return where optimizer step `step_in_epoch` of the current epoch starts, in epochs."""
        return self.epoch + step_in_epoch / self._steps_per_epoch

    def _take_step(self, indices: Indices) -> None:
        """Accumulate the gradient of one effective batch and apply it."""
        noise = self._noise(indices)
        mixing = self._mixing(indices)
        self.model.train()
        self.model.start_step(self._position(self._step_in_epoch))
        self._adversary.start_step(self._position(self._step_in_epoch))
        self._optimisation.zero_grad()
        for positions in micro_batches(
            self.dataset, indices, self._multiple, self._pixel_budget, self._copies(indices)
        ):
            batch = self._load(indices[positions])
            own = torch.stack([noise[position] for position in positions])
            if mixing is None:
                terms, logits = self._objective_of(batch, own)
            else:
                partners = mixing.partners[positions]
                other = self._load(indices[partners])
                others = torch.stack([noise[position] for position in partners])
                terms, logits = self._mixed_objective(batch, own, other, others, mixing.shares_of(positions))
            self._optimisation.backward(terms.total.sum() / len(indices))
            self._sums.add_images(terms)
            self._sums.add_parts(self._adversary.learn(logits, batch, len(indices)))
        start, end = self._position(self._step_in_epoch), self._position(self._step_in_epoch + 1)
        self._sums.add_step(self._optimisation.step(start, end))
        self._adversary.finish_step(start, end)
        self._scaler.update()
        self._objective.finish_step()
        self.model.finish_step()
        self.step += 1
        self._step_in_epoch += 1
        if self._average:
            self._average.update(self.model, self.step)

    def _load(self, indices: Indices) -> Batch:
        """Return training images as the current epoch shows them."""
        return load_batch(self.dataset, indices, self._multiple, self.device, self._reader(), self._labels)

    def _mixing(self, indices: Indices) -> Mixing | None:
        """Return which images of an effective batch have their codes mixed; None where none have."""
        alpha = self.config.data.augment.latent_mixup
        if alpha is None:
            return None
        return plan_mixing([self._padded_size(index) for index in indices], alpha, self.config.seed, self.step)

    def _noise(self, indices: Indices) -> Sequence[torch.Tensor]:
        """Return the noise of each image of an effective batch, drawn image by image before it is split."""
        counts = [self.model.noise_size(self._padded_size(index)) for index in indices]
        key = generator("z", self.config.seed, self.step)
        return torch.split(torch.randn(sum(counts), generator=key), counts)

    def _copies(self, indices: Indices) -> Indices:
        """Return how often each image is reconstructed in a step: once, or for each label where it is unknown."""
        return np.where(self._labels[indices] < 0, max(1, self.model.classes), 1)

    def _reader(self) -> Reader | None:
        """Return what reads training images in the current epoch, None where they are taken as they are stored."""
        if self._augmenter is None:
            return None
        return self._augmenter.reader(self.dataset, "augment", self.config.seed, self.epoch)

    def _padded_size(self, index: int) -> tuple[int, int]:
        height, width = self.dataset.sizes[index]
        return padded_size((int(height), int(width)), self._multiple)

    def _objective_of(self, batch: Batch, noise: torch.Tensor) -> tuple[Objective, torch.Tensor]:
        """Return the objective of a micro-batch, and the logits `(R, C, H, W)` of its reconstructions."""
        with self._autocast():
            latent = self.model.infer(batch.inputs, noise.to(self.device), batch.labels)
            logits = self.model.decode(latent.z, batch.padded_size, latent.labels, latent.skips)
        latent = self._adversary.oppose(latent, logits, batch)
        return self._objective.of(batch, logits, latent, self._position(self._step_in_epoch)), logits

    def _mixed_objective(
        self, batch: Batch, noise: torch.Tensor, other: Batch, other_noise: torch.Tensor, shares: torch.Tensor
    ) -> tuple[Objective, torch.Tensor]:
        """Return the objective of images drawn from codes between theirs and their partners', and the logits.

        Each is judged against both images by the shares `(B,)` of their codes, and pays the KL of its own.
        """
        shares = shares.to(self.device)
        with self._autocast():
            latent = self.model.infer(batch.inputs, noise.to(self.device), batch.labels)
            partner = self.model.infer(other.inputs, other_noise.to(self.device), other.labels)
            z = between(latent.z, partner.z, shares)
            logits = self.model.decode(z, batch.padded_size, latent.labels, latent.skips)
        position = self._position(self._step_in_epoch)
        own_terms = self._objective.of(batch, logits, latent, position)
        other_terms = self._objective.of(other, logits, latent, position)
        return mixed(own_terms, other_terms, shares), logits

    def _autocast(self) -> AbstractContextManager[Any]:
        amp = self.config.train.amp
        return torch.autocast(self.device.type, dtype=_AMP_TYPES.get(amp), enabled=amp != "off")

    def _evaluation_is_due(self) -> bool:
        done = self.epoch + 1
        return done % self.config.evaluate.every_epochs == 0 or done >= self.config.train.epochs

    def _evaluate(self) -> EvaluationResult:
        result = self.evaluator.evaluate(
            self.evaluated_model,
            "val",
            self._objective.beta(self._position(self._step_in_epoch)),
            sigma=self._objective.scale(),
        )
        _refuse_non_finite(result.metrics, f"the evaluation after epoch {self.epoch + 1}")
        return result

    def _is_better(self, result: EvaluationResult) -> bool:
        if self._best is None:
            return True
        value, best = result.metrics[self.config.evaluate.select], self._best["value"]
        return bool(value > best if _HIGHER_IS_BETTER[self.config.evaluate.select] else value < best)

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
        self._sums = _RunningSums(self.device)
        vectors = result.vectors if result is not None else {}
        return Epoch(self.epoch, self.step, metrics, vectors, seconds, self.finished)

    def _remember(self, result: EvaluationResult) -> None:
        """Update the best weights, the learning rate and early stopping with an evaluation."""
        value = result.metrics[self.config.evaluate.select]
        if self._is_better(result):
            weights = {name: tensor.detach().clone() for name, tensor in self.evaluated_model.state_dict().items()}
            self._best = {"epoch": self.epoch, "value": value, "sigma": self._objective.scale(), "model": weights}
            self._evaluations_since_best = 0
        else:
            self._evaluations_since_best += 1
        self._max_active_units = max(self._max_active_units, int(result.metrics["latent/active_units"]))
        self._optimisation.observe(value)
        self._adversary.observe(value)
        patience = self.config.train.early_stopping_patience
        self._stopped_early = patience is not None and self._evaluations_since_best >= patience

    def _train_metrics(self, seconds: float) -> dict[str, float]:
        means = self._sums.means()
        scheduled = self._objective.scheduled_beta(self._position(self._step_in_epoch - 1))
        beta = means.get("train/effective_beta", effective_beta(scheduled))  # a mean where a KL control moves it
        pixels = float(np.prod(self.dataset.sizes[self._train], axis=1).mean()) * self.dataset.channels
        return means | {
            "train/effective_beta": beta,
            "train/normalised_beta": normalised_beta(beta, self.config.model.latent_dim, pixels),
            "train/lr": self._optimisation.lr,
            "time/epoch_s": seconds,
            "time/images_per_s": len(self._train) / seconds,
        }

    def _best_so_far(self) -> dict[str, Any]:
        if self._best is None:
            raise RuntimeError("there are no best weights before the first evaluation")
        return self._best


class _RunningSums:
    """Sums over an epoch's images and steps, kept on the device so that no step waits for the host."""

    def __init__(self, device: torch.device) -> None:
        self._terms = torch.zeros(3, dtype=torch.float64, device=device)  # objective, reconstruction, kl
        self._parts: dict[str, torch.Tensor] = {}  # scalars, float64
        self._norms = torch.zeros(2, dtype=torch.float64, device=device)  # sum and count of finite norms
        self._images = 0

    def add_images(self, terms: Objective) -> None:
        sums = torch.stack([terms.total.sum(), terms.reconstruction.sum(), terms.kl.sum()])
        self._terms += sums.detach().double()
        self.add_parts(terms.parts)
        self._images += len(terms.total)

    def add_parts(self, parts: Mapping[str, torch.Tensor]) -> None:
        for name, part in parts.items():
            self._parts[name] = self._parts.get(name, torch.zeros_like(self._terms[0])) + part.double().sum()

    def add_step(self, norm: torch.Tensor) -> None:
        finite = torch.isfinite(norm)  # an fp16 overflow is skipped by the scaler and not counted
        self._norms += torch.stack([torch.where(finite, norm, 0.0), finite.to(norm.dtype)]).double()

    def means(self) -> dict[str, float]:
        sums = torch.stack([*self._terms, *self._parts.values()])
        objective_, reconstruction, kl, *parts = (sums / self._images).tolist()
        norm, count = self._norms.tolist()
        return {
            "train/objective": objective_,
            "train/reconstruction": reconstruction,
            "train/kl": kl,
            "train/grad_norm": norm / max(count, 1.0),
        } | {f"train/{name}": mean for name, mean in zip(self._parts, parts, strict=True)}

    def state_dict(self) -> dict[str, Any]:
        return {"terms": self._terms, "parts": dict(self._parts), "norms": self._norms, "images": self._images}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._terms = state["terms"].to(self._terms.device).clone()
        self._parts = {name: part.to(self._terms.device) for name, part in state["parts"].items()}
        self._norms = state["norms"].to(self._norms.device).clone()
        self._images = state["images"]


def _refuse_non_finite(metrics: dict[str, float], place: str) -> None:
    bad = [f"{name} = {value}" for name, value in metrics.items() if not np.isfinite(value)]
    if bad:
        raise TrainingDivergedError(f"{place} is not finite: {', '.join(bad)}; lower optim.lr or set optim.clip_norm")
