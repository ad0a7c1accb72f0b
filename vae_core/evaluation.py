"""The one definition of every `val/`, `latent/` and `test/` number.

Shapes: N images of a split, B of a batch, C channels, H x W padded pixels, M latent dimensions. Everything is
computed per image in float32 with the model in eval mode, and averaged over images in float64.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from torch import Tensor, nn

from vae_core.config import RunConfig
from vae_core.data.batches import Batch, Indices, load_batch, micro_batches, padding_multiple
from vae_core.diagnostics import active_units, latent_variance, mu_std
from vae_core.errors import UserError
from vae_core.losses import LIKELIHOODS, fitted_scale, kl_per_dimension, objective, real_dims, reparameterize
from vae_core.metrics import mse_per_image, ssim_per_image
from vae_core.models.vae import VAE
from vae_core.perceptual import Lpips, lpips_available
from vae_core.random_streams import generator, numpy_generator

if TYPE_CHECKING:
    from vae_core.data.dataset import Dataset

_LATENT_NAMES = {"active_units": "active_units", "variance": "latent_variance", "mu_std": "mu_std"}


@dataclass(frozen=True)
class EvaluationResult:
    """What one evaluation measured.

    Attributes:
        metrics: numbers by key, for example `val/elbo`; nats per image unless the key says otherwise.
        vectors: `kl_per_dim` (nats), `latent_variance_per_dim`, `mu_std_per_dim`: M numbers each, unsorted.
        tags: `lpips`: measured, off, or missing with the reason.
    """

    metrics: dict[str, float]
    vectors: dict[str, list[float]]
    tags: dict[str, str]


class Evaluator:
    """Measures models on a split, always in the same way.

    z is sampled once per image, from a noise stream keyed by the image's index alone. The evaluation
    likelihood (`evaluate.likelihood`) has a single scale, fitted on the reconstructions of a fixed choice of
    training images.

    Args:
        config: its `evaluate`, `loss`, `data.pad_multiple` and the model's stride count.
        dataset: the prepared data set.
        device: where the models given to `evaluate` live.
        pixel_budget: px of padded images per batch; default `train.pixel_budget`. Changes rounding at most.
        on_batch: called after every batch.

    Raises:
        UserError: `evaluate.lpips` is required and its weights are missing or damaged.
    """

    def __init__(
        self,
        config: RunConfig,
        dataset: "Dataset",
        device: torch.device | str,
        pixel_budget: int | None = None,
        on_batch: Callable[[], None] | None = None,
    ) -> None:
        self._config = config
        self._on_batch = on_batch or _nothing
        self._pixel_budget = pixel_budget or config.train.pixel_budget
        self._dataset = dataset
        self.multiple = padding_multiple(config.model.stride, config.data.pad_multiple)
        self._device = torch.device(device)
        self._likelihood = LIKELIHOODS[config.evaluate.likelihood]
        self._trained_likelihood = LIKELIHOODS[config.loss.reconstruction]
        self._scale_images = _choose(dataset.splits["train"], config.evaluate.scale_images)
        self._noise: dict[int, Tensor] = {}
        self.lpips_tag, self._lpips = _perceptual(config.evaluate.lpips, self._device)

    def evaluate(
        self, model: VAE, split: Literal["val", "test"], beta: float, *, exchange: bool = False
    ) -> EvaluationResult:
        """Measure `model` on a split.

        Args:
            model: left in the mode (train or eval) that it was in.
            split: `val` gives `val/...` and `latent/...`, `test` gives everything under `test/...`.
            beta: coefficient of the KL in the objective, as it stands now.
            exchange: also measure `exchange_cost`, which decodes every image twice; always on for `test`.

        Raises:
            UserError: the split has fewer than two images.
        """
        indices = self._dataset.splits[split]
        if len(indices) < 2:
            raise UserError(f"data.{split}_fraction: leaves {len(indices)} images in {split}; at least 2 are needed")
        with evaluating(model):
            scale = self._fit_scale(model)
            measured = self._measure(model, indices)
            metrics = self._metrics(measured, scale, beta)
            if exchange or split == "test":
                metrics["exchange_cost"] = self._exchange_cost(model, indices, measured)
        return EvaluationResult(
            _with_keys(metrics, _latent_metrics(measured), split),
            _vectors(measured),
            {"lpips": self.lpips_tag},
        )

    def reconstruct(self, model: VAE, indices: Indices) -> list[Tensor]:
        """Return the reconstructions of the images at `indices`, each `(C, h, w)` float32 on the CPU.

        They come from the same sampled z as the metrics, and have no padding.
        """
        found: dict[int, Tensor] = {}
        with evaluating(model):
            for positions, batch in self._batches(indices):
                mu, logvar = model.encode(batch.images)
                images = torch.sigmoid(self._decode(model, batch, self._sample(batch, mu, logvar))).cpu()
                for position, image, (height, width) in zip(positions, images, batch.sizes.tolist(), strict=True):
                    found[int(position)] = image[:, :height, :width]
        return [found[position] for position in range(len(indices))]

    def examples(self, model: VAE, count: int) -> tuple[list[Tensor], list[Tensor]]:
        """Return up to `count` validation images, always the same ones, and their reconstructions."""
        indices = _choose(self._dataset.splits["val"], count)
        targets = [torch.from_numpy(self._dataset.image(int(index)).copy()).float() / 255 for index in indices]
        return targets, self.reconstruct(model, indices)

    @property
    def typical_size(self) -> tuple[int, int]:
        """Return the median height and width (px) of the training images."""
        height, width = np.median(self._dataset.sizes[self._dataset.splits["train"]], axis=0)
        return int(height), int(width)

    def _batches(self, indices: Indices) -> Iterator[tuple[Indices, Batch]]:
        for positions in micro_batches(self._dataset, indices, self.multiple, self._pixel_budget):
            yield positions, load_batch(self._dataset, indices[positions], self.multiple, self._device)
            self._on_batch()

    def _sample(self, batch: Batch, mu: Tensor, logvar: Tensor) -> Tensor:
        noise = torch.stack([self._noise_of(index, mu.shape[1]) for index in batch.indices.tolist()])
        return reparameterize(mu, logvar, noise.to(mu.device))

    def _noise_of(self, index: int, latent_dim: int) -> Tensor:
        known = self._noise.get(index)
        if known is None or len(known) != latent_dim:
            known = self._noise[index] = torch.randn(latent_dim, generator=generator("evaluation", index))
        return known

    def _decode(self, model: VAE, batch: Batch, z: Tensor) -> Tensor:
        height, width = batch.images.shape[-2:]
        return model.decode(z, (height, width)).float()

    def _fit_scale(self, model: VAE) -> float | None:
        """Return the maximum likelihood scale on the training reconstructions, None where there is none."""
        if self._likelihood.fit is None:
            return None
        errors, dims = [], []
        for _, batch in self._batches(self._scale_images):
            mu, logvar = model.encode(batch.images)
            logits = self._decode(model, batch, self._sample(batch, mu, logvar))
            errors.append(self._likelihood.error(logits, batch.images, batch.mask))
            dims.append(real_dims(batch.mask, batch.images.shape[1]))
        error_sum = float(torch.cat(errors).double().sum())
        return fitted_scale(self._config.evaluate.likelihood, error_sum, float(torch.cat(dims).double().sum()))

    def _measure(self, model: VAE, indices: Indices) -> dict[str, Tensor]:
        """Return per-image measurements in the order of `indices`, float64 on the CPU."""
        order, parts = [], []
        for positions, batch in self._batches(indices):
            order.append(positions)
            parts.append(self._measure_batch(model, batch))
        return _gathered(order, parts)

    def _measure_batch(self, model: VAE, batch: Batch) -> dict[str, Tensor]:
        mu, logvar = model.encode(batch.images)
        z = self._sample(batch, mu, logvar)
        logits = self._decode(model, batch, z)
        reconstructions = torch.sigmoid(logits)
        measured = {
            "mu": mu,
            "logvar": logvar,
            "z": z,
            "kl": kl_per_dimension(mu, logvar),
            "dims": real_dims(batch.mask, batch.images.shape[1]),
            "error": self._likelihood.error(logits, batch.images, batch.mask),
            "trained_error": self._trained_likelihood.error(logits, batch.images, batch.mask),
            "mse": mse_per_image(reconstructions, batch.images, batch.sizes),
            "ssim": ssim_per_image(reconstructions, batch.images, batch.sizes),
        }
        if self._lpips is not None:
            measured["lpips"] = self._lpips(reconstructions, batch.images, batch.sizes)
        return measured

    def _metrics(self, measured: dict[str, Tensor], scale: float | None, beta: float) -> dict[str, float]:
        dims = measured["dims"]
        nll = self._likelihood.nll(measured["error"], dims, scale or 1.0)
        trained_nll = self._trained_likelihood.nll(measured["trained_error"], dims, self._config.loss.sigma)
        kl = measured["kl"].sum(1)
        elbo = -objective(nll, kl, 1.0).total
        per_image = {
            "elbo": elbo,
            "reconstruction": nll,
            "kl": kl,
            "objective": objective(trained_nll, kl, beta).total,
            "elbo_per_pixel": elbo / dims,
        } | {name: measured[name] for name in ("mse", "ssim", "lpips") if name in measured}
        metrics = {name: float(values.mean()) for name, values in per_image.items()}
        return metrics if scale is None else {**metrics, "scale": scale}

    def _exchange_cost(self, model: VAE, indices: Indices, measured: dict[str, Tensor]) -> float:
        """Return the relative increase of the summed reconstruction error when z is exchanged between images.

        Each image decodes the z of the image half the split further on (neighbours may be near-duplicates).
        The log-normaliser is left out: it does not depend on z, and with it the term can be zero or negative.
        """
        others = measured["z"].roll(-(len(indices) // 2), dims=0)  # (N, M)
        order, parts = [], []
        for positions, batch in self._batches(indices):
            z = others[torch.from_numpy(positions)].float().to(self._device)
            order.append(positions)
            logits = self._decode(model, batch, z)
            parts.append({"error": self._likelihood.error(logits, batch.images, batch.mask)})
        exchanged = _gathered(order, parts)["error"]
        return float(exchanged.sum() / measured["error"].sum() - 1)


def _nothing() -> None:
    """Do nothing."""


def _choose(indices: Indices, count: int) -> Indices:
    """Return at most `count` of `indices`, the same for every run and every evaluation of a data set."""
    if len(indices) <= count:
        return indices
    chosen = numpy_generator("evaluation-scale").choice(np.sort(indices), size=count, replace=False)
    return np.sort(chosen)


def _perceptual(mode: str, device: torch.device) -> tuple[str, Lpips | None]:
    if mode == "off":
        return "off", None
    reason = lpips_available()
    if mode == "auto" and reason is not None:
        return f"missing: {reason}", None
    return "measured", Lpips(device)


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put the model into eval mode without gradients, and back into its mode afterwards."""
    was_training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            yield
    finally:
        model.train(was_training)


def _gathered(order: list[Indices], parts: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Join the batches' measurements, put them into the split's order and move them to the CPU as float64."""
    back = torch.from_numpy(np.argsort(np.concatenate(order)))
    return {name: torch.cat([part[name] for part in parts]).double().cpu()[back] for name in parts[0]}


def _latent_metrics(measured: dict[str, Tensor]) -> dict[str, float]:
    return {
        "active_units": float(active_units(measured["mu"])),
        "variance": float(latent_variance(measured["logvar"]).mean()),
        "mu_std": float(mu_std(measured["mu"]).mean()),
    }


def _vectors(measured: dict[str, Tensor]) -> dict[str, list[float]]:
    return {
        "kl_per_dim": measured["kl"].mean(0).tolist(),
        "latent_variance_per_dim": latent_variance(measured["logvar"]).tolist(),
        "mu_std_per_dim": mu_std(measured["mu"]).tolist(),
    }


def _with_keys(metrics: dict[str, float], latent: dict[str, float], split: str) -> dict[str, float]:
    keyed = {f"{split}/{name}": value for name, value in metrics.items()}
    if split == "test":
        return keyed | {f"test/{_LATENT_NAMES[name]}": value for name, value in latent.items()}
    return keyed | {f"latent/{name}": value for name, value in latent.items()}
