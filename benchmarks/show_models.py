"""What each kind of model is for, by one number against a control; a Markdown table for BENCHMARKS.md.

    python benchmarks/show_models.py FOLDER_OF_FASHION_MNIST [--epochs 15] [--only vq hierarchical skips blocks]

Some minutes on one core.
"""

import argparse
import time
from statistics import mean
from typing import Any

import torch

from vae_core.config import RunConfig, load_base, override, parse_config
from vae_core.data import prepare
from vae_core.events import Epoch, TestResult
from vae_core.trainer import Trainer

_COMMON = {
    "data.limit": 4000,
    "loss.sigma": 0.1,
    "optim.lr_schedule": "cosine",
    "evaluate.lpips": "off",
    "evaluate.every_epochs": 5,
}
_SEEDS = 5
_VQ = {"model.family": "vq", "model.bottleneck": "spatial", "model.latent_dim": 16, "model.codes": 128}


def config_of(folder: str, epochs: int, changes: dict[str, Any]) -> RunConfig:
    """Return the config of `fashion-mnist` with `changes`."""
    common = {**_COMMON, "data.path": folder, "train.epochs": epochs}
    return parse_config(override(load_base("fashion-mnist", "benchmark"), common | changes), "benchmark")


def trained(folder: str, epochs: int, changes: dict[str, Any]) -> tuple[TestResult, Trainer, float]:
    """Train; return the test result, the trainer and s per epoch."""
    config = config_of(folder, epochs, changes)
    trainer = Trainer(config, prepare(config.data))
    seconds = [event.seconds for event in trainer.fit() if isinstance(event, Epoch)]
    return trainer.test(), trainer, sum(seconds) / len(seconds)


def parameters(trainer: Trainer) -> int:
    """Return the number of the model's weights."""
    return sum(weight.numel() for weight in trainer.model.parameters())


def show_vq(folder: str, epochs: int) -> None:
    """Perplexity and dead codes with and without restarts."""
    for name, restart in (("restart", 0.03), ("no restart", 0.0)):
        result, _, _ = trained(folder, epochs, {**_VQ, "model.code_restart": restart})
        used, dead = result.metrics["test/perplexity"], result.metrics["test/dead_codes"]
        mse = result.metrics["test/mse"]
        print(f"| vq, {name} | perplexity {used:.1f} of 128 codes, {dead:.0f} dead | MSE {mse:.5f} |")


def show_hierarchical(folder: str, epochs: int) -> None:
    """KL of each group, and the ELBO against a plain VAE of about as many parameters, seed by seed."""
    elbos: dict[str, list[float]] = {}
    families: dict[str, dict[str, Any]] = {
        "hierarchical": {"model.family": "hierarchical"},
        "vae": {"model.encoder_widths": [16, 33]},
    }
    for name, changes in families.items():
        for seed in range(_SEEDS):
            result, trainer, _ = trained(folder, epochs, {**changes, "seed": seed})
            groups = [f"{value:.2f}" for key, value in sorted(result.metrics.items()) if "kl_group" in key]
            elbos.setdefault(name, []).append(result.metrics["test/elbo"])
        ours = ", ".join(f"{elbo:.1f}" for elbo in elbos[name])
        print(f"| {name}, {parameters(trainer):,} parameters | test ELBO {ours} nats | groups' KL {groups} nats |")
    difference = mean(elbos["hierarchical"]) - mean(elbos["vae"])
    print(f"| hierarchical minus vae | {difference:+.1f} nats, mean of {_SEEDS} seeds | |")


def show_skips(folder: str, epochs: int) -> None:
    """What exchanging z between images costs, with and without skips."""
    for name, skips in (("without skips", False), ("with skips", True)):
        result, _, _ = trained(folder, epochs, {"model.skips": skips})
        cost = result.metrics["test/exchange_cost"]
        print(f"| {name} | exchanging z costs {cost:.1%} | verdict {result.verdict.name} |")


def show_blocks(folder: str, epochs: int) -> None:
    """Parameters and time of blocks and attention."""
    cells: dict[str, dict[str, Any]] = {
        "resnet": {},
        "resnet + CBAM": {"model.cbam": True},
        "plain": {"model.block": "plain"},
        "densenet": {"model.block": "densenet", "model.growth_rate": 8, "model.dense_layers": 3},
    }
    for name, changes in cells.items():
        result, trainer, seconds = trained(folder, max(2, epochs // 5), changes)
        mse = result.metrics["test/mse"]
        print(f"| {name} | {parameters(trainer):,} parameters, {seconds:.1f} s per epoch | MSE {mse:.5f} |")


def main() -> None:
    """Print one row per model."""
    shows = {"vq": show_vq, "hierarchical": show_hierarchical, "skips": show_skips, "blocks": show_blocks}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder")
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--only", nargs="+", choices=shows, default=list(shows))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    for name in arguments.only:
        started = time.monotonic()
        shows[name](arguments.folder, arguments.epochs)
        print(f"({name}: {time.monotonic() - started:.0f} s)", flush=True)


if __name__ == "__main__":
    main()
