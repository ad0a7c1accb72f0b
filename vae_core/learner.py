"""A model and everything that moves it; one call of `take_step` is one optimizer step.

Letters: B images of a micro-batch, N images of an effective batch, C channels, H x W padded pixels.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from vae_core.adversary import Adversary, NoAdversary, build_adversary
from vae_core.config import RunConfig
from vae_core.data.augment import augmenter_of
from vae_core.data.batches import Batch, Indices, Reader, load_batch, micro_batches, padded_size, padding_multiple
from vae_core.data.dataset import Dataset
from vae_core.data.labels import visible_labels
from vae_core.epoch_sums import EpochSums
from vae_core.losses import Objective
from vae_core.mixup import Mixing, between, mixed, plan_mixing
from vae_core.models.latent import LatentModel
from vae_core.models.vae import build_model
from vae_core.objective import TrainingObjective
from vae_core.optimisation import Optimisation, WeightAverage
from vae_core.random_streams import generator

_AMP_TYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Moment:
    """When an optimizer step is taken.

    Attributes:
        step: steps before it in the run.
        epoch: finished epochs before it.
        start: where it starts, in epochs.
        end: where it ends, in epochs.
    """

    step: int
    epoch: int
    start: float
    end: float


class Learner:
    """Model, objective, optimizer, opponent and the average of the weights.

    Args:
        config: the run's config.
        dataset: the prepared data set.
        device: where the model lives.
        pixel_budget: px of padded images per micro-batch.

    Attributes:
        model: what is trained.
        objective: what training minimises.
        sums: of the epoch under way; whoever counts the epochs renews them.
        labels: `(images of the data set,)` int64, -1 where the model may not see the label.
    """

    def __init__(self, config: RunConfig, dataset: Dataset, device: torch.device, pixel_budget: int) -> None:
        self._config = config
        self._dataset = dataset
        self._device = device
        self._pixel_budget = pixel_budget
        self._multiple = padding_multiple(config.model.stride, config.data.pad_multiple)
        self._augmenter = augmenter_of(config.data.augment)
        self._moment = Moment(0, 0, 0.0, 0.0)
        self.labels = visible_labels(dataset, fraction=config.data.labelled_fraction, seed=config.data.split_seed)
        self.model = self.new_model()
        self.sums = EpochSums(device)
        self.objective = TrainingObjective(
            config.loss,
            epochs=config.train.epochs,
            latent_dim=self.model.latent_dim,
            smallest_side=int(dataset.sizes.min()),
            device=device,
        )
        self._scaler = torch.amp.GradScaler(device.type, enabled=config.train.amp == "fp16")
        self._optimisation = Optimisation(
            self.model.parameters(),
            config.optim,
            undecayed=self.objective.parameters(),
            epochs=config.train.epochs,
            higher_is_better=config.evaluate.higher_is_better,
            scaler=self._scaler,
        )
        self._adversary = self._build_adversary()
        self._average = self._weight_average()

    @property
    def evaluated_model(self) -> LatentModel:
        """Return the model that is evaluated, selected and drawn: the average of the weights where there is one."""
        return self._average.model if self._average else self.model

    @property
    def lr(self) -> float:
        """Return the learning rate of the last step."""
        return self._optimisation.lr

    @property
    def tags(self) -> dict[str, str]:
        """Return what a reader of the metrics must know: which weights were measured, and whether the ELBO is one."""
        decay = self._config.optim.ema_decay
        weights = "last step" if decay is None else f"exponential average, decay {decay:g} per step"
        elbo = []
        if not self.model.has_prior:
            elbo.append(f"no bound but -reconstruction: family {self._config.model.family} has no prior")
        if self.model.classes:
            elbo.append("conditional on the label")
        if self._config.model.skips:
            elbo.append("no bound: what skips carry past the latent is not in the KL")
        return {"weights": weights} | ({"elbo": "; ".join(elbo)} if elbo else {})

    def mean_latent_size(self, indices: Indices) -> float:
        """Return the mean over images of how many numbers their latent holds: M, times positions where it has any."""
        sizes, counts = np.unique(self._dataset.sizes[indices], axis=0, return_counts=True)
        padded = [padded_size((int(height), int(width)), self._multiple) for height, width in sizes]
        positions = [self.model.positions(size) for size in padded]
        return self.model.latent_dim * float(np.average(positions, weights=counts))

    def observe(self, value: float) -> None:
        """Tell the learning rates the value of an evaluation."""
        self._optimisation.observe(value)
        self._adversary.observe(value)

    def state_dict(self) -> dict[str, Any]:
        """Return everything that later steps depend on."""
        return {
            "model": self.model.state_dict(),
            "optimisation": self._optimisation.state_dict(),
            "objective": self.objective.state_dict(),
            "adversary": self._adversary.state_dict(),
            "average": self._average.model.state_dict() if self._average else None,
            "scaler": self._scaler.state_dict(),
            "sums": self.sums.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from `state_dict`."""
        self.model.load_state_dict(state["model"])
        self._optimisation.load_state_dict(state["optimisation"])
        self.objective.load_state_dict(state["objective"])
        self._adversary.load_state_dict(state["adversary"])
        if self._average:
            self._average.model.load_state_dict(state["average"])
        self._scaler.load_state_dict(state["scaler"])
        self.sums.load_state_dict(state["sums"])

    def new_model(self) -> LatentModel:
        """Return a model of the same kind with the weights that it had at the start."""
        classes = len(self._dataset.label_names)
        return build_model(self._config.model, self._dataset.channels, self._config.seed, self._device, classes)

    def take_step(self, indices: Indices, moment: Moment) -> None:
        """Accumulate the gradient of one effective batch and apply it."""
        self._moment = moment
        noise = self._noise(indices)
        mixing = self._mixing(indices)
        self.model.train()
        self.model.start_step(moment.start)
        self._adversary.start_step(moment.start)
        self._optimisation.zero_grad()
        for positions in micro_batches(
            self._dataset, indices, self._multiple, self._pixel_budget, self._copies(indices)
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
            self.sums.add_images(terms)
            self.sums.add_parts(self._adversary.learn(logits, batch, len(indices)))
        self.sums.add_step(self._optimisation.step(moment.start, moment.end))
        self._adversary.finish_step(moment.start, moment.end)
        self._scaler.update()
        self.objective.finish_step()
        self.model.finish_step()
        if self._average:
            self._average.update(self.model, moment.step + 1)

    def _build_adversary(self) -> Adversary:
        if not self.model.has_adversary:
            return NoAdversary()
        return build_adversary(
            self._config,
            channels=self._dataset.channels,
            device=self._device,
            higher_is_better=self._config.evaluate.higher_is_better,
            scaler=self._scaler,
            autocast=self._autocast,
        )

    def _weight_average(self) -> WeightAverage[LatentModel] | None:
        if self._config.optim.ema_decay is None:
            return None
        return WeightAverage(self.new_model(), self._config.optim.ema_decay)

    def _load(self, indices: Indices) -> Batch:
        """Return training images as the current epoch shows them."""
        return load_batch(self._dataset, indices, self._multiple, self._device, self._reader(), self.labels)

    def _mixing(self, indices: Indices) -> Mixing | None:
        """Return which images of an effective batch have their codes mixed; None where none have."""
        alpha = self._config.data.augment.latent_mixup
        if alpha is None:
            return None
        return plan_mixing([self._padded_size(index) for index in indices], alpha, self._config.seed, self._moment.step)

    def _noise(self, indices: Indices) -> Sequence[torch.Tensor]:
        """Return the noise of each image of an effective batch, drawn image by image before it is split."""
        counts = [self.model.noise_size(self._padded_size(index)) for index in indices]
        key = generator("z", self._config.seed, self._moment.step)
        return torch.split(torch.randn(sum(counts), generator=key), counts)

    def _copies(self, indices: Indices) -> Indices:
        """Return how often each image is reconstructed in a step: once, or for each label where it is unknown."""
        return np.where(self.labels[indices] < 0, max(1, self.model.classes), 1)

    def _reader(self) -> Reader | None:
        """Return what reads training images in the current epoch, None where they are taken as they are stored."""
        if self._augmenter is None:
            return None
        return self._augmenter.reader(self._dataset, "augment", self._config.seed, self._moment.epoch)

    def _padded_size(self, index: int) -> tuple[int, int]:
        height, width = self._dataset.sizes[index]
        return padded_size((int(height), int(width)), self._multiple)

    def _objective_of(self, batch: Batch, noise: torch.Tensor) -> tuple[Objective, torch.Tensor]:
        """Return the objective of a micro-batch, and the logits `(R, C, H, W)` of its reconstructions."""
        with self._autocast():
            latent = self.model.infer(batch.inputs, noise.to(self._device), batch.labels)
            logits = self.model.decode(latent.z, batch.padded_size, latent.labels, latent.skips)
        latent = self._adversary.oppose(latent, logits, batch)
        return self.objective.of(batch, logits, latent, self._moment.start), logits

    def _mixed_objective(
        self, batch: Batch, noise: torch.Tensor, other: Batch, other_noise: torch.Tensor, shares: torch.Tensor
    ) -> tuple[Objective, torch.Tensor]:
        """Return the objective of images drawn from codes between theirs and their partners', and the logits.

        Each is judged against both images by the shares `(B,)` of their codes, and pays the KL of its own.
        """
        shares = shares.to(self._device)
        with self._autocast():
            latent = self.model.infer(batch.inputs, noise.to(self._device), batch.labels)
            partner = self.model.infer(other.inputs, other_noise.to(self._device), other.labels)
            z = between(latent.z, partner.z, shares)
            logits = self.model.decode(z, batch.padded_size, latent.labels, latent.skips)
        position = self._moment.start
        own_terms = self.objective.of(batch, logits, latent, position, shares)
        other_terms = self.objective.of(other, logits, latent, position, 1 - shares)
        return mixed(own_terms, other_terms, shares), logits

    def _autocast(self) -> AbstractContextManager[Any]:
        amp = self._config.train.amp
        return torch.autocast(self._device.type, dtype=_AMP_TYPES.get(amp), enabled=amp != "off")
