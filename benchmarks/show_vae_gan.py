"""A small vae_gan beside a plain vae of equal epochs: is the discriminator fooled, and what does it do to the images?

Prints the discriminator's accuracy and the adversarial loss of every epoch, then the test metrics of both. About 2
minutes on one core.

    python benchmarks/show_vae_gan.py [FOLDER_OF_FASHION_MNIST] [--epochs N] [--set PATH=VALUE ...]

Without a folder it trains on synthetic wireframes.
"""

import argparse
import time
from collections.abc import Mapping

from vae_core.config import RunConfig, load_base, override, parse_config
from vae_core.data import prepare
from vae_core.events import Epoch
from vae_core.trainer import Trainer
from vae_core.yaml_io import parse_yaml

_FAMILIES = ("vae", "vae_gan")
_METRICS = ("test/ssim", "test/mse", "test/lpips", "test/elbo", "test/kl", "test/active_units")
_LOGGED = ("train/discriminator_accuracy", "train/discriminator_loss", "train/adversarial")


def config_of(folder: str | None, family: str, changes: Mapping[str, object]) -> RunConfig:
    """Return the config of a run: 6,000 images of Fashion-MNIST, or the wireframes of a laptop."""
    if folder is None:
        tree = load_base("wireframes-tiny", "show_vae_gan")
    else:
        tree = override(load_base("fashion-mnist-conv", "show_vae_gan"), {"data.path": folder, "data.limit": 6000})
        tree = override(tree, {"loss.reconstruction": "gaussian", "loss.sigma": 0.2, "loss.adversarial": 0.05})
        tree = override(tree, {"train.effective_batch": 64})
    return parse_config(override(tree, {**changes, "model.family": family, "train.device": "cpu"}), "show_vae_gan")


def train(config: RunConfig) -> tuple[dict[str, float], float]:
    """Train, print what the discriminator did, and return the test metrics and the seconds taken."""
    trainer = Trainer(config, prepare(config.data))
    started = time.perf_counter()
    for event in trainer.fit():
        if isinstance(event, Epoch) and _LOGGED[0] in event.metrics:
            print(f"| {event.epoch} | " + " | ".join(f"{event.metrics[key]:.3f}" for key in _LOGGED) + " |", flush=True)
    seconds = time.perf_counter() - started
    return trainer.test().metrics, seconds


def main() -> None:
    """Train both families and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?")
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--set", action="append", default=[], metavar="PATH=VALUE", help="overrides a config path")
    arguments = parser.parse_args()
    changes = {"train.epochs": arguments.epochs} | {
        path: parse_yaml(value, path) for path, value in (pair.split("=", 1) for pair in arguments.set)
    }
    print("| epoch | accuracy | discriminator's loss | adversarial loss (nats per image) |\n|---:|---:|---:|---:|")
    results = {family: train(config_of(arguments.folder, family, changes)) for family in _FAMILIES}
    shown = [key for key in _METRICS if key in results["vae"][0]]
    print("\n| family | s |" + "".join(f" {key} |" for key in shown) + "\n|---|---:|" + "---:|" * len(shown))
    for family, (metrics, seconds) in results.items():
        print(f"| {family} | {seconds:.0f} |" + "".join(f" {metrics[key]:.4f} |" for key in shown))


if __name__ == "__main__":
    main()
