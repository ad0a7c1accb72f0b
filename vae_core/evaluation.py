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
from vae_core.data.augment import Augmenter, augmenter_of
from vae_core.data.batches import Batch, Indices, Reader, load_batch, micro_batches, padding_multiple
from vae_core.diagnostics import active_units, dead_codes, latent_variance, mu_std, mutual_information, perplexity
from vae_core.errors import UserError
from vae_core.losses import LIKELIHOODS, fitted_scale, objective, real_dims
from vae_core.metrics import mse_per_image, ssim_per_image
from vae_core.models.latent import Latent, LatentModel
from vae_core.perceptual import Lpips, lpips_available
from vae_core.random_streams import generator, numpy_generator

if TYPE_CHECKING:
    from vae_core.data.dataset import Dataset

_AUGMENTATION = "augment-evaluation"  # what is drawn for figures and train/elbo_augmented is the same every time
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

    z is sampled once per image, from a noise stream keyed by the image's index alone. Conditional models are given
    the image's own label, whatever training sees of it: their ELBO is that of ln p(x|y). The evaluation
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
        train = dataset.splits["train"]
        if config.model.conditional and dataset.labels is not None:
            train = train[dataset.labels[train] >= 0]
        self._scale_images = _choose(train, config.evaluate.scale_images)
        augmenter = augmenter_of(config.data.augment)
        self._augmented = augmenter.reader(dataset, _AUGMENTATION) if augmenter else None
        self._noise: dict[int, Tensor] = {}
        self.lpips_tag, self._lpips = _perceptual(config.evaluate.lpips, self._device)

    def evaluate(
        self,
        model: LatentModel,
        split: Literal["val", "test"],
        beta: float,
        *,
        sigma: float | None = None,
        exchange: bool = False,
    ) -> EvaluationResult:
        """Measure `model` on a split.

        Args:
            model: left in the mode (train or eval) that it was in.
            split: `val` gives `val/...` and `latent/...` and, where training images are augmented, the ELBO of some
                of them as they are and as one draw augments them; `test` gives everything under `test/...`.
            beta: coefficient of the KL in the objective, as it stands now.
            sigma: scale of the trained likelihood as it stands now; default: `loss.sigma`. `objective` is this
                likelihood plus beta times the KL, without further terms of the training objective.
            exchange: also measure `exchange_cost`, which decodes every image twice; always on for `test`.

        Raises:
            UserError: the split has fewer than two images.
        """
        indices = self._dataset.splits[split]
        if len(indices) < 2:
            raise UserError(f"data.{split}_fraction: leaves {len(indices)} images in {split}; at least 2 are needed")
        with evaluating(model):
            trained = self._measure_training(model, None) if self._likelihood.fit or self._augmented else {}
            scale = self._fit_scale(trained)
            measured = self._measure(model, indices)
            metrics = self._metrics(measured, scale, beta, sigma or self._config.loss.sigma)
            if exchange or split == "test":
                metrics["exchange_cost"] = self._exchange_cost(model, indices, measured)
            if split == "test" and "z" in measured:
                metrics["mutual_information"] = mutual_information(measured["z"], measured["mu"], measured["logvar"])
            train = self._train_elbos(model, trained, scale) if split == "val" else {}
        return EvaluationResult(
            _with_keys(metrics, _latent_metrics(measured), split) | train,
            _vectors(measured),
            {"lpips": self.lpips_tag},
        )

    def reconstruct(self, model: LatentModel, indices: Indices, reader: Reader | None = None) -> list[Tensor]:
        """Return the reconstructions of the images at `indices`, each `(C, h, w)` float32 on the CPU.

        They come from the same sampled z as the metrics, and have no padding. With a `reader` the model sees its
        inputs instead of the images.
        """
        found: dict[int, Tensor] = {}
        with evaluating(model):
            for positions, batch in self._batches(indices, reader):
                images = torch.sigmoid(_decode(model, batch, self._infer(model, batch))).cpu()
                for position, image, (height, width) in zip(positions, images, batch.sizes.tolist(), strict=True):
                    found[int(position)] = image[:, :height, :width]
        return [found[position] for position in range(len(indices))]

    def examples(self, model: LatentModel, count: int) -> tuple[list[Tensor], list[Tensor]]:
        """Return up to `count` validation images, always the same ones, and their reconstructions."""
        indices = _choose(self._dataset.splits["val"], count)
        targets = [torch.from_numpy(self._dataset.image(int(index)).copy()).float() / 255 for index in indices]
        return targets, self.reconstruct(model, indices)

    def corrupted_examples(self, model: LatentModel, count: int) -> tuple[list[Tensor], list[Tensor]] | None:
        """Return the images of `examples` corrupted as in training, and their reconstructions; None without that."""
        corruptions = Augmenter(self._config.data.augment, target_too=False)
        if not corruptions.corrupts:
            return None
        indices = _choose(self._dataset.splits["val"], count)
        reader = corruptions.reader(self._dataset, _AUGMENTATION)
        return [reader(int(index))[1] for index in indices], self.reconstruct(model, indices, reader)

    @property
    def label_names(self) -> list[str]:
        """Return the words of the data set's labels."""
        return self._dataset.label_names

    @property
    def typical_size(self) -> tuple[int, int]:
        """Return the median height and width (px) of the training images."""
        height, width = np.median(self._dataset.sizes[self._dataset.splits["train"]], axis=0)
        return int(height), int(width)

    def _batches(self, indices: Indices, reader: Reader | None = None) -> Iterator[tuple[Indices, Batch]]:
        for positions in micro_batches(self._dataset, indices, self.multiple, self._pixel_budget):
            yield positions, load_batch(self._dataset, indices[positions], self.multiple, self._device, reader)
            self._on_batch()

    def _infer(self, model: LatentModel, batch: Batch) -> Latent:
        count = model.noise_size(batch.padded_size)
        noise = torch.stack([self._noise_of(index, count) for index in batch.indices.tolist()])
        return model.infer(batch.inputs, noise.to(self._device), batch.labels)

    def _noise_of(self, index: int, count: int) -> Tensor:
        known = self._noise.get(index)
        if known is None or len(known) != count:
            known = self._noise[index] = torch.randn(count, generator=generator("evaluation", index))
        return known

    def _measure_training(self, model: LatentModel, reader: Reader | None) -> dict[str, Tensor]:
        """Return error, values and KL, `(N,)` each, of a fixed choice of training images."""
        parts = []
        for _, batch in self._batches(self._scale_images, reader):
            latent = self._infer(model, batch)
            error = self._likelihood.error(_decode(model, batch, latent), batch.images, batch.mask)
            dims = real_dims(batch.mask, batch.images.shape[1])
            parts.append({"error": error, "dims": dims, "kl": latent.kl.sum(1)})
        return {name: torch.cat([part[name] for part in parts]).double() for name in parts[0]}

    def _fit_scale(self, trained: dict[str, Tensor]) -> float | None:
        """Return the maximum likelihood scale on the training reconstructions, None where there is none."""
        if self._likelihood.fit is None:
            return None
        error, dims = float(trained["error"].sum()), float(trained["dims"].sum())
        return fitted_scale(self._config.evaluate.likelihood, error, dims)

    def _train_elbos(self, model: LatentModel, trained: dict[str, Tensor], scale: float | None) -> dict[str, float]:
        """Return what training images score as they are and augmented; nothing where they are not augmented.

        A gap between the two is the augmentation's, one between `train/elbo_clean` and `val/elbo` overfitting.
        """
        if self._augmented is None:
            return {}
        metrics = {}
        for name, terms in {"clean": trained, "augmented": self._measure_training(model, self._augmented)}.items():
            nll = self._likelihood.nll(terms["error"], terms["dims"], scale or 1.0)
            metrics[f"train/elbo_{name}"] = float(-(nll + terms["kl"]).mean())
        return metrics

    def _measure(self, model: LatentModel, indices: Indices) -> dict[str, Tensor]:
        """Return per-image measurements in the order of `indices`, float64 on the CPU."""
        order, parts = [], []
        for positions, batch in self._batches(indices):
            order.append(positions)
            parts.append(self._measure_batch(model, batch))
        return _gathered(order, parts)

    def _measure_batch(self, model: LatentModel, batch: Batch) -> dict[str, Tensor]:
        latent = self._infer(model, batch)
        logits = _decode(model, batch, latent)
        reconstructions = torch.sigmoid(logits)
        measured = _of_latent(latent) | {
            "dims": real_dims(batch.mask, batch.images.shape[1]),
            "error": self._likelihood.error(logits, batch.images, batch.mask),
            "trained_error": self._trained_likelihood.error(logits, batch.images, batch.mask),
            "mse": mse_per_image(reconstructions, batch.images, batch.sizes),
            "ssim": ssim_per_image(reconstructions, batch.images, batch.sizes),
        }
        if latent.label_probabilities is not None:
            measured["accuracy"] = latent.label_probabilities.argmax(1).cpu() == batch.labels
        if self._lpips is not None:
            measured["lpips"] = self._lpips(reconstructions, batch.images, batch.sizes)
        return measured

    def _metrics(self, measured: dict[str, Tensor], scale: float | None, beta: float, sigma: float) -> dict[str, float]:
        dims = measured["dims"]
        nll = self._likelihood.nll(measured["error"], dims, scale or 1.0)
        trained_nll = self._trained_likelihood.nll(measured["trained_error"], dims, sigma)
        kl = measured["kl"].sum(1)
        elbo = -objective(nll, kl, 1.0).total
        per_image = {
            "elbo": elbo,
            "reconstruction": nll,
            "kl": kl,
            "objective": objective(trained_nll, kl, beta, measured["losses"]).total,
            "elbo_per_pixel": elbo / dims,
        } | {name: measured[name] for name in ("mse", "ssim", "lpips", "accuracy") if name in measured}
        metrics = {name: float(values.mean()) for name, values in per_image.items()}
        return metrics if scale is None else {**metrics, "scale": scale}

    def _exchange_cost(self, model: LatentModel, indices: Indices, measured: dict[str, Tensor]) -> float:
        """Return the relative increase of the summed reconstruction error when z is exchanged between images.

        Each image decodes the z of the image half the split further on (neighbours may be near-duplicates), its
        positions repeated or dropped where a spatial z has another size. Labels and skips stay each image's own.
        The log-normaliser is left out: it does not depend on z, and with it the term can be zero or negative.
        """
        codes: dict[int, Tensor] = {}
        for positions, batch in self._batches(indices):
            codes |= dict(zip(positions.tolist(), self._infer(model, batch).z, strict=True))
        order, parts = [], []
        for positions, batch in self._batches(indices):
            others = [(position + len(indices) // 2) % len(indices) for position in positions.tolist()]
            shape = codes[int(positions[0])].shape
            z = torch.stack([_of_shape(codes[other], shape) for other in others])
            order.append(positions)
            own = self._infer(model, batch)
            logits = model.decode(z, batch.padded_size, own.labels, own.skips).float()
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


def _decode(model: LatentModel, batch: Batch, latent: Latent) -> Tensor:
    return model.decode(latent.z, batch.padded_size, latent.labels, latent.skips).float()


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


def _of_shape(z: Tensor, shape: torch.Size) -> Tensor:
    """Return `z (M,)` as it is and `(M, h, w)` with the positions of `shape`, the nearest repeated or dropped."""
    return z if z.shape == shape else nn.functional.interpolate(z[None], size=shape[1:], mode="nearest")[0]


def _of_latent(latent: Latent) -> dict[str, Tensor]:
    """Return what is measured of a latent: one row per image; of mu and log variance one per position where spatial."""
    measured = {
        "mu": _rows(latent.mu),
        "kl": latent.kl,
        "losses": torch.stack([*latent.losses.values(), torch.zeros_like(latent.kl[:, 0])]).sum(0),
    }
    if latent.logvar is not None:
        measured["logvar"] = _rows(latent.logvar)
        if latent.z.shape == latent.mu.shape and latent.z.ndim == 2 and not latent.groups:
            measured["z"] = latent.z  # of groups below the first, mu belongs to one sample of those above
    if latent.groups:
        groups = torch.split(latent.kl, list(latent.groups), dim=1)
        measured["kl_groups"] = torch.stack([group.sum(1) for group in groups], dim=1)
    if latent.code_counts is not None:
        measured["code_counts"] = latent.code_counts
    return measured


def _rows(code: Tensor) -> Tensor:
    """Return `code (B, M)` as it is, and `(B, M, h, w)` as `(B h w, M)`."""
    return code.movedim(1, -1).flatten(0, -2)


def _gathered(order: list[Indices], parts: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Join the batches' measurements, put them into the split's order and move them to the CPU as float64.

    Rows of positions stay in the order in which they were measured.
    """
    back = torch.from_numpy(np.argsort(np.concatenate(order)))
    joined = {name: torch.cat([part[name] for part in parts]).double().cpu() for name in parts[0]}
    return {name: rows[back] if len(rows) == len(back) else rows for name, rows in joined.items()}


def _latent_metrics(measured: dict[str, Tensor]) -> dict[str, float]:
    metrics = {
        "active_units": float(active_units(measured["mu"])),
        "mu_std": float(mu_std(measured["mu"]).mean()),
    }
    if "logvar" in measured:
        metrics["variance"] = float(latent_variance(measured["logvar"]).mean())
    if "kl_groups" in measured:
        groups = measured["kl_groups"].mean(0).tolist()
        metrics |= {f"kl_group_{number}": nats for number, nats in enumerate(groups)}
    if "code_counts" in measured:
        metrics["perplexity"] = perplexity(measured["code_counts"])
        metrics["dead_codes"] = float(dead_codes(measured["code_counts"]))
    return metrics


def _vectors(measured: dict[str, Tensor]) -> dict[str, list[float]]:
    vectors = {"kl_per_dim": measured["kl"].mean(0).tolist(), "mu_std_per_dim": mu_std(measured["mu"]).tolist()}
    if "logvar" in measured:
        vectors["latent_variance_per_dim"] = latent_variance(measured["logvar"]).tolist()
    return vectors


def _with_keys(metrics: dict[str, float], latent: dict[str, float], split: str) -> dict[str, float]:
    keyed = {f"{split}/{name}": value for name, value in metrics.items()}
    if split == "test":
        return keyed | {f"test/{_LATENT_NAMES.get(name, name)}": value for name, value in latent.items()}
    return keyed | {f"latent/{name}": value for name, value in latent.items()}
