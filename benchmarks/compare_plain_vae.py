"""Ours against a plain training loop: a convolutional VAE on Fashion-MNIST, latent 10, Bernoulli, beta 1, 10 epochs.

Both train on the same images with the same hyperparameters, once per seed, and one evaluator measures both on all
10,000 test images with sampled z. Prints the difference of the negative ELBOs with its 95% paired t interval.

    python benchmarks/compare_plain_vae.py FOLDER_OF_FASHION_MNIST [--seeds 5] [--epochs 10]

About 3 minutes per model and seed on one core; seeds run in as many processes as there are cores.
"""

import argparse
import functools
import multiprocessing
import os
import time

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from scipy import stats
from torch import Tensor, nn

from vae_core.config import RunConfig, load_base, override, parse_config
from vae_core.data import Dataset, prepare
from vae_core.data.batches import load_batch
from vae_core.evaluation import Evaluator
from vae_core.losses import kl_per_dimension
from vae_core.models.latent import Latent, LatentModel
from vae_core.trainer import Trainer

_LATENT, _BATCH, _LR, _DECAY = 10, 128, 1e-3, 1e-5


class Plain(LatentModel):
    """The network in as few lines as torch allows, with torch's own initial weights."""

    latent_dim = _LATENT

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Conv2d(1, 32, 4, 2, 1), nn.ReLU(), nn.Conv2d(32, 64, 4, 2, 1), nn.ReLU(), nn.Flatten()
        )
        self.mu, self.logvar = nn.Linear(64 * 7 * 7, _LATENT), nn.Linear(64 * 7 * 7, _LATENT)
        self.project = nn.Linear(_LATENT, 64 * 7 * 7)
        self.decoder = nn.Sequential(nn.ConvTranspose2d(64, 32, 4, 2, 1), nn.ReLU(), nn.ConvTranspose2d(32, 1, 4, 2, 1))

    def noise_size(self, size: tuple[int, int]) -> int:
        """Return the number of latent dimensions."""
        return _LATENT

    def infer(self, images: Tensor, noise: Tensor, labels: Tensor | None = None) -> Latent:
        """Return the latent of `images (B, 1, 28, 28)`."""
        hidden = self.encoder(images)
        mu, logvar = self.mu(hidden), self.logvar(hidden)
        return Latent(mu + torch.exp(0.5 * logvar) * noise, mu, logvar, kl_per_dimension(mu, logvar))

    def decode(
        self, z: Tensor, size: tuple[int, int], labels: Tensor | None = None, skips: tuple[Tensor, ...] = ()
    ) -> Tensor:
        """Return logits `(B, 1, 28, 28)`."""
        return self.decoder(F.relu(self.project(z)).view(-1, 64, 7, 7))

    def prior(self, noise: Tensor, size: tuple[int, int]) -> Tensor:
        """Return draws from N(0, I)."""
        return noise


def train_plain(dataset: Dataset, seed: int, epochs: int) -> Plain:
    """Return `Plain` after `epochs` of Adam on the summed loss of each batch."""
    torch.manual_seed(seed)
    model = Plain()
    indices = torch.from_numpy(dataset.splits["train"])
    pixels = load_batch(dataset, indices.numpy(), 4, "cpu").images  # 28 x 28 needs no padding
    optimizer = torch.optim.Adam(model.parameters(), lr=_LR, weight_decay=_DECAY)
    for _ in range(epochs):
        for chosen in torch.randperm(len(pixels)).split(_BATCH):
            images = pixels[chosen]
            hidden = model.encoder(images)
            mu, logvar = model.mu(hidden), model.logvar(hidden)
            logits = model.decode(mu + torch.exp(0.5 * logvar) * torch.randn_like(mu), (28, 28))
            reconstruction = F.binary_cross_entropy(torch.sigmoid(logits), images, reduction="sum")
            kl = -0.5 * torch.sum(1 + logvar - mu.pow(2) - logvar.exp())
            optimizer.zero_grad()
            (reconstruction + kl).backward()
            optimizer.step()
    return model


def config_of(folder: str, seed: int, epochs: int) -> RunConfig:
    """Return the config of our run."""
    changes = {
        "data.path": folder,
        "data.val_fraction": 0.01,
        "train.epochs": epochs,
        "train.effective_batch": _BATCH,
        "optim.lr": _LR,
        "optim.weight_decay": _DECAY,
        "evaluate.likelihood": "bernoulli",
        "evaluate.lpips": "off",
        "evaluate.every_epochs": epochs,
        "seed": seed,
    }
    return parse_config(override(load_base("fashion-mnist-conv", "benchmark"), changes), "benchmark")


def compare(folder: str, epochs: int, seed: int) -> tuple[int, list[float], tuple[float, float], int]:
    """Return seed, negative test ELBOs (nats per image) of ours and the plain loop, s of each, and test images."""
    torch.set_num_threads(1)
    config = config_of(folder, seed, epochs)
    dataset = prepare(config.data)
    evaluator = Evaluator(config, dataset, "cpu")
    started = time.perf_counter()
    trainer = Trainer(config, dataset)
    for _ in trainer.fit():
        pass
    between = time.perf_counter()
    plain = train_plain(dataset, seed, epochs)
    ended = time.perf_counter()
    measured = [-evaluator.evaluate(model, "test", 1.0).metrics["test/elbo"] for model in (trainer.model, plain)]
    return seed, measured, (between - started, ended - between), len(dataset.splits["test"])


def main() -> None:
    """Compare, seed by seed, and print the paired interval."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=10)
    arguments = parser.parse_args()
    prepare(config_of(arguments.folder, seed=0, epochs=1).data)  # once, for all processes
    differences = []
    work = functools.partial(compare, arguments.folder, arguments.epochs)
    with multiprocessing.get_context("spawn").Pool(os.cpu_count()) as pool:
        for seed, (ours, plain), seconds, count in pool.imap_unordered(work, range(arguments.seeds)):
            differences.append(ours - plain)
            print(
                f"seed {seed}: ours {ours:.2f}, plain loop {plain:.2f} nats per image on {count} images; "
                f"{seconds[0]:.0f} s and {seconds[1]:.0f} s",
                flush=True,
            )
    mean, error = np.mean(differences), stats.sem(differences)
    low, high = mean + error * np.array(stats.t.ppf([0.025, 0.975], len(differences) - 1))
    print(f"ours minus plain loop: {mean:+.3f} nats per image, 95% paired interval {low:+.3f} to {high:+.3f}")


if __name__ == "__main__":
    main()
