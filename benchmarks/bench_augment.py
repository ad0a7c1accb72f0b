"""What augmentation costs per image, and whether training on corrupted inputs learns to undo the corruption.

Prints Markdown tables for BENCHMARKS.md. `--data FOLDER` trains on Fashion-MNIST (the folder of its idx files)
instead of synthetic wireframes.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Callable

import torch
from torch import Tensor

from experiments.pca import mean_image
from vae_core.config import RunConfig, load_base, override, parse_config
from vae_core.data import Dataset, prepare
from vae_core.data.augment import AUGMENTATIONS, Augmenter
from vae_core.evaluation import Evaluator
from vae_core.random_streams import generator
from vae_core.schema.augment import AugmentConfig
from vae_core.trainer import Trainer

CALLS = 500
SIZE = (1, 128, 64)  # C, h, w
KEY = "benchmark"
NOISE = {"data.augment.gaussian_noise": 0.3}
HOLES = {"data.augment.erase": 1.0, "data.augment.erase_min_area": 0.05, "data.augment.erase_max_area": 0.15}
THREE = {"rotation_degrees": 5.0, "brightness_jitter": 0.1, "gaussian_noise": 0.15}


def main() -> None:
    """Measure everything in one process on one thread and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", help="folder of Fashion-MNIST")
    parser.add_argument("--epochs", type=int, default=12, help="epochs of each of the two trainings")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print("| augmentation of a gray image of 64 x 128 px | us per image |\n|---|---:|")
    for name, spent in costs():
        print(f"| {name} | {1e6 * spent:.0f} |")
    with tempfile.TemporaryDirectory() as cache:
        tree = base_tree(arguments.data, arguments.epochs, cache)
        print("\n| test images of " + tree["data"]["source"] + " | value |\n|---|---:|")
        for name, value in denoising(tree) + inpainting(tree):
            print(f"| {name} | {value} |")


def base_tree(folder: str | None, epochs: int, cache: str) -> dict[str, object]:
    """Return the config that both trainings share."""
    changes = {"train.epochs": epochs, "train.device": "cpu", "evaluate.lpips": "off", "data.cache_dir": cache}
    changes |= {"loss.sigma": 0.1, "model.latent_dim": 32}
    return override(load_base("fashion-mnist" if folder else "wireframes-tiny", KEY), changes | {"data.path": folder})


def costs() -> list[tuple[str, float]]:
    """Return seconds per image of each augmentation at its shown strength, and of three together."""
    image = torch.rand(SIZE, generator=generator(KEY))
    rows = []
    for name, entry in AUGMENTATIONS.items():
        augmenter = Augmenter(AugmentConfig.model_validate(entry.shown))
        rows.append((name, seconds(lambda call, augmenter=augmenter: augmenter.pair(image, KEY, call))))
    together = Augmenter(AugmentConfig.model_validate(THREE))
    return [*rows, (", ".join(THREE), seconds(lambda call: together.pair(image, KEY, call)))]


def seconds(action: Callable[[int], object]) -> float:
    """Return how long a call of `action` takes, over `CALLS` calls after a few that are not counted."""
    for call in range(20):
        action(call)
    start = time.perf_counter()
    for call in range(CALLS):
        action(call)
    return (time.perf_counter() - start) / CALLS


def denoising(tree: dict[str, object]) -> list[tuple[str, str]]:
    """Return the PSNR (dB) of noisy test images and of what a model trained on noisy inputs makes of them."""
    config, _, clean, noisy, restored = train(tree, NOISE)
    before, after = psnr(noisy, clean), psnr(restored, clean)
    sd = config.data.augment.gaussian_noise
    return [
        (f"PSNR of Gaussian noise, sd {sd:g}", f"{before:.2f} dB"),
        ("PSNR of the reconstruction from it", f"{after:.2f} dB"),
        ("gain (bar: 3 dB)", f"{after - before:+.2f} dB"),
    ]


def inpainting(tree: dict[str, object]) -> list[tuple[str, str]]:
    """Return the mean squared error inside erased rectangles, of a model trained to fill them and of two constants."""
    _, dataset, clean, holed, restored = train(tree, HOLES)
    eraser = Augmenter(AugmentConfig.model_validate({name.split(".")[-1]: value for name, value in HOLES.items()}))
    test = dataset.splits["test"].tolist()
    holes = [eraser.pair(torch.ones_like(image), KEY, index)[1] == 0 for index, image in zip(test, clean, strict=True)]
    visible = [image[~hole].mean() for image, hole in zip(holed, holes, strict=True)]
    mean = torch.from_numpy(mean_image(dataset, dataset.splits["train"])).float()  # (C, H, W)
    guesses = {
        "the model": restored,
        "the mean of the visible px": [m.expand_as(i) for i, m in zip(clean, visible, strict=True)],
        "the mean training image": [mean[:, : image.shape[1], : image.shape[2]] for image in clean],
    }
    return [(f"MSE in the hole, filled by {name}", f"{hole_error(g, clean, holes):.4f}") for name, g in guesses.items()]


def train(
    tree: dict[str, object], changes: dict[str, float]
) -> tuple[RunConfig, Dataset, list[Tensor], list[Tensor], list[Tensor]]:
    """Train with corruptions; return the test images, the same corrupted, and what the best model makes of these."""
    config = parse_config(override(tree, changes), KEY)
    dataset = prepare(config.data)
    trainer = Trainer(config, dataset)
    for _ in trainer.fit():
        pass
    reader = Augmenter(config.data.augment, target_too=False).reader(dataset, KEY)
    test = dataset.splits["test"]
    restored = Evaluator(config, dataset, "cpu").reconstruct(trainer.best_model(), test, reader)
    pairs = [reader(index) for index in test.tolist()]
    return config, dataset, [pair[0] for pair in pairs], [pair[1] for pair in pairs], restored


def psnr(images: list[Tensor], clean: list[Tensor]) -> float:
    """Return the mean over images of -10 log10 of the mean squared error, in dB."""
    errors = torch.stack([(image - target).square().mean() for image, target in zip(images, clean, strict=True)])
    return float((-10 * torch.log10(errors)).mean())


def hole_error(guesses: list[Tensor], clean: list[Tensor], holes: list[Tensor]) -> float:
    """Return the mean over images of the mean squared error inside the hole."""
    triples = zip(guesses, clean, holes, strict=True)
    return float(torch.stack([(guess - image)[hole].square().mean() for guess, image, hole in triples]).mean())


if __name__ == "__main__":
    print(f"{os.cpu_count()} cores, 1 thread, torch {torch.__version__}\n")
    main()
