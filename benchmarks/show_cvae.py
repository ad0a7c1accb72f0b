"""Two claims about `model.family: cvae`, measured on part of Fashion-MNIST.

1. Samples show what was asked for: a classifier that has only seen real images names 1,000 draws from the prior,
   100 for each label; printed beside its accuracy on real test images.
2. Images without a label help: with the labels of a tenth of the training images, inferring the others' labels
   against leaving those images out. Both take as many optimizer steps, and validation selects their weights.

    python benchmarks/show_cvae.py FOLDER_OF_FASHION_MNIST [--images 15000] [--few-images 4000] [--seeds 2]

About 4 minutes on one core.
"""

import argparse
import time

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from vae_core.config import load_base, override, parse_config
from vae_core.data import Dataset, prepare
from vae_core.data.batches import load_batch
from vae_core.figures import prior_samples
from vae_core.random_streams import generator
from vae_core.trainer import Trainer

_SAMPLES = 100  # per label
_FRACTION = 0.1
_BATCH = 64


def trained(folder: str, **changes: object) -> tuple[Trainer, float]:
    """Return a trainer that has come to its end, and the s it took."""
    fixed = {
        "data.path": folder,
        "model.family": "cvae",
        "train.effective_batch": _BATCH,
        "optim.lr": 3e-3,
        "train.device": "cpu",
        "evaluate.lpips": "off",
        "evaluate.likelihood": "bernoulli",
    }
    config = parse_config(override(load_base("fashion-mnist-conv", "benchmark"), fixed | changes), "benchmark")
    started = time.perf_counter()
    trainer = Trainer(config, prepare(config.data))
    for _ in trainer.fit():
        pass
    return trainer, time.perf_counter() - started


def images_of(dataset: Dataset, split: str) -> tuple[Tensor, Tensor]:
    """Return the images `(N, 1, 28, 28)` of a split and their labels `(N,)`."""
    batch = load_batch(dataset, dataset.splits[split], 4, "cpu")
    return batch.images, batch.labels


def classifier_of(dataset: Dataset, epochs: int = 8) -> nn.Module:
    """Return a small network that names the images of the train split, knowing nothing of any VAE."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = nn.Sequential(
            *(nn.Conv2d(1, 16, 3, 1, 1), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Conv2d(16, 32, 3, 1, 1), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Flatten(), nn.Linear(32 * 7 * 7, 128), nn.ReLU(), nn.Linear(128, len(dataset.label_names))),
        )
    images, labels = images_of(dataset, "train")
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    for epoch in range(epochs):
        for chosen in torch.randperm(len(images), generator=generator("classifier", epoch)).split(_BATCH):
            optimizer.zero_grad()
            F.cross_entropy(network(images[chosen]), labels[chosen]).backward()
            optimizer.step()
    return network.eval()


@torch.no_grad()
def share_named(network: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Return the share of `images (N, 1, 28, 28)` that the network names as `labels (N,)`."""
    return float((network(images).argmax(1) == labels).float().mean())


def show_samples(folder: str, images: int) -> None:
    """Print how often samples are named as they were asked for, for all labels and for each."""
    trainer, seconds = trained(folder, **{"data.limit": images, "train.epochs": 16})
    dataset, model = trainer.dataset, trainer.best_model()
    network = classifier_of(dataset)
    shares = []
    for label in range(len(dataset.label_names)):
        drawn = torch.stack(prior_samples(model, _SAMPLES, (28, 28), 4, label))
        shares.append(share_named(network, drawn, torch.full((_SAMPLES,), label)))
    real = share_named(network, *images_of(dataset, "test"))
    print(f"cvae: {len(dataset.splits['train'])} training images, all labelled, {seconds:.0f} s")
    print(f"independent classifier: accuracy {real:.1%} on {len(dataset.splits['test'])} real test images")
    count = _SAMPLES * len(shares)
    print(f"it names {sum(shares) / len(shares):.1%} of {count} samples as requested; by label:")
    print("  " + ", ".join(f"{name} {share:.0%}" for name, share in zip(dataset.label_names, shares, strict=True)))


def show_unlabelled(folder: str, images: int, seeds: int) -> None:
    """Print what test images cost with unlabelled images used and dropped."""
    epochs = {"use": 6, "drop": round(6 / _FRACTION)}
    print(f"labelled_fraction {_FRACTION:g}:")
    for seed in range(seeds):
        words = []
        for unlabelled, count in epochs.items():
            changes = {"data.limit": images, "data.labelled_fraction": _FRACTION, "data.unlabelled": unlabelled}
            changes |= {"train.epochs": count, "evaluate.every_epochs": max(1, count // 6), "seed": seed}
            trainer, seconds = trained(folder, **changes)
            metrics = trainer.test().metrics
            words.append(
                f"{unlabelled} test/elbo {metrics['test/elbo']:.2f}, test/accuracy {metrics['test/accuracy']:.1%} "
                f"({trainer.step} steps, {seconds:.0f} s)"
            )
        print(f"  seed {seed}: " + "; ".join(words), flush=True)


def main() -> None:
    """Measure both claims."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder")
    parser.add_argument("--images", type=int, default=15000)
    parser.add_argument("--few-images", type=int, default=4000)
    parser.add_argument("--seeds", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    show_samples(arguments.folder, arguments.images)
    show_unlabelled(arguments.folder, arguments.few_images, arguments.seeds)


if __name__ == "__main__":
    main()
