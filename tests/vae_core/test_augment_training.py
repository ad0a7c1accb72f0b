"""Augmentation in the data set, in batches, in the trainer, in evaluations and in figures."""

import numpy as np
import pytest
import torch
from support.training import assert_bit_equal, epochs_of, through_disk

from vae_core.config import DataConfig, RunConfig, identity, override, parse_config, run_id
from vae_core.data import prepare
from vae_core.data.augment import AUGMENTATIONS, Augmenter, augmenter_of
from vae_core.data.batches import load_batch
from vae_core.evaluation import Evaluator
from vae_core.events import Epoch, Step
from vae_core.figures import write_figures
from vae_core.losses import LIKELIHOODS, real_dims
from vae_core.random_streams import generator
from vae_core.schema.augment import AugmentConfig
from vae_core.trainer import Trainer

TREE = {
    "model": {
        "latent_dim": 3,
        "encoder_widths": [4, 8],
        "decoder_widths": [8, 4],
        "norm_groups": 2,
        "stem_kernel": 3,
        "cbam_reduction": 2,
    },
    "optim": {"lr": 1e-2},
    "train": {"epochs": 2, "effective_batch": 7, "device": "cpu"},
    "evaluate": {"lpips": "off", "scale_images": 9},
    "data": {"pad_multiple": 8},
}
SEVERAL = {
    "data.augment.crop_height": 13,
    "data.augment.rotation_degrees": 10.0,
    "data.augment.flip_horizontal": 0.5,
    "data.augment.auto_augment": "svhn",
    "data.augment.gaussian_noise": 0.1,
    "data.augment.erase": 0.7,
}
NOISY = {"data.augment.gaussian_noise": 0.3, "data.augment.flip_vertical": 1.0, "train.epochs": 1}


def config(**changes):
    return parse_config(override(TREE, changes), "test")


def trained(dataset, changes, **arguments):
    trainer = Trainer(config(**changes), dataset, **arguments)
    return trainer, [event for event in trainer.fit() if isinstance(event, Epoch)]


@pytest.fixture
def dataset(make_dataset):
    return make_dataset(count=40)


class TestCrop:
    def test_images_are_cropped_to_their_middle_and_their_windows_are_the_stored_rows(self, dataset):
        cropped = dataset.cropped(13)
        assert cropped.sizes[:, 0].max() == 13
        for index in range(len(dataset)):
            whole, shown = dataset.image(index), cropped.image(index)
            hidden = whole.shape[1] - 13
            assert cropped.hidden_rows(index) == hidden
            assert np.array_equal(shown, whole[:, hidden // 2 : hidden // 2 + 13])
            for top in range(hidden + 1):
                assert np.array_equal(cropped.image(index, top), whole[:, top : top + 13])
            assert np.array_equal(cropped.cropped(None).image(index), whole)

    def test_the_fingerprint_says_whether_an_image_is_cropped_and_to_what(self, dataset):
        assert dataset.cropped(24).fingerprint == dataset.cropped(None).fingerprint == dataset.fingerprint
        assert len({dataset.fingerprint, dataset.cropped(23).fingerprint, dataset.cropped(13).fingerprint}) == 3

    def test_training_sees_every_window_and_draws_them_again_each_epoch(self, dataset):
        cropped, augmenter = dataset.cropped(16), augmenter_of(AugmentConfig(crop_height=16))
        tall = next(index for index in range(len(dataset)) if cropped.hidden_rows(index) == 8)
        whole = torch.from_numpy(dataset.image(tall).copy()).float() / 255
        tops = set()
        for epoch in range(200):
            target, inputs = augmenter.reader(cropped, "augment", 0, epoch)(tall)
            assert torch.equal(target, inputs)
            tops |= {top for top in range(9) if torch.equal(target, whole[:, top : top + 16])}
        assert tops == set(range(9))

    def test_preparing_shares_one_cache_entry_and_crops_as_asked(self, tmp_path):
        changes = {"count": 20, "cache_dir": str(tmp_path)}
        plain = prepare(DataConfig(**changes))
        low = prepare(DataConfig(**changes, augment=AugmentConfig(crop_height=20)))
        noisy = prepare(DataConfig(**changes, augment=AugmentConfig(gaussian_noise=0.1)))
        assert len(list(tmp_path.iterdir())) == 1
        assert low.sizes[:, 0].max() == 20 < plain.sizes[:, 0].max()
        assert noisy.fingerprint == plain.fingerprint != low.fingerprint


def test_a_batch_without_a_reader_shares_its_images_and_with_one_pads_pairs_with_zeros(dataset):
    indices = dataset.splits["train"][:3]
    plain = load_batch(dataset, indices, 24, "cpu")
    assert plain.inputs is plain.images
    settings = AugmentConfig(rotation_degrees=20.0, uniform_noise=0.3)
    reader = Augmenter(settings).reader(dataset, "augment", 0, 0)
    batch = load_batch(dataset, indices, 24, "cpu", reader)
    assert torch.equal(batch.mask, plain.mask)
    assert torch.equal(batch.sizes, plain.sizes)
    for row, index in enumerate(indices.tolist()):
        height, width = dataset.sizes[index]
        for images, expected in zip((batch.images, batch.inputs), reader(index), strict=True):
            assert torch.equal(images[row, :, :height, :width], expected)
        for images in (batch.images, batch.inputs):
            assert not images[row, :, height:].any()
            assert not images[row, :, :, width:].any()
    assert not torch.equal(batch.images, batch.inputs)


def test_a_pair_depends_on_seed_epoch_and_index_alone(dataset):
    augmenter = Augmenter(AugmentConfig(rotation_degrees=20.0, gaussian_noise=0.1))
    first = {index: augmenter.reader(dataset, "augment", 1, 2)(index) for index in range(10)}
    for index in reversed(range(10)):
        again = augmenter.reader(dataset, "augment", 1, 2)(index)
        assert all(torch.equal(left, right) for left, right in zip(again, first[index], strict=True))
    for other in (("augment", 2, 2), ("augment", 1, 3)):
        assert not torch.equal(augmenter.reader(dataset, *other)(3)[0], first[3][0])
    noises = [inputs - target for target, inputs in first.values()]
    assert not torch.equal(noises[1][0, :8, :8], noises[2][0, :8, :8])


class TestTraining:
    def test_a_run_resumed_after_any_step_ends_bit_equal(self, dataset):
        dataset = dataset.cropped(13)
        whole = Trainer(config(**SEVERAL), dataset)
        states, epochs = [], []
        for event in whole.fit():
            if isinstance(event, Step):
                states.append((whole.epoch, through_disk(whole.state_dict())))
            elif isinstance(event, Epoch):
                epochs.append(event)
        for done, state in states[::2]:
            resumed = Trainer(config(**SEVERAL), dataset)
            resumed.load_state_dict(state)
            rest = [event for event in resumed.fit() if isinstance(event, Epoch)]
            assert epochs_of(rest) == epochs_of(epochs)[done:]
            assert_bit_equal(resumed.model.state_dict(), whole.model.state_dict())

    def test_what_a_step_sees_is_keyed_by_seed_epoch_and_index_whatever_the_pixel_budget(self, dataset):
        dataset = dataset.cropped(13)
        seen = []
        for budget in (1, 10**9):
            trainer = Trainer(config(**SEVERAL), dataset, pixel_budget=budget)
            pairs = {}

            def objective_of(batch, noise, trainer=trainer, pairs=pairs, original=trainer.learner._objective_of):
                for row, index in enumerate(batch.indices.tolist()):
                    pairs[trainer.epoch, index] = batch.images[row], batch.inputs[row]
                return original(batch, noise)

            trainer.learner._objective_of = objective_of
            list(trainer.fit())
            seen.append(pairs)
        assert seen[0].keys() == seen[1].keys()
        assert len(seen[0]) == 2 * len(dataset.splits["train"])
        for key, pair in seen[0].items():
            assert torch.equal(pair[0], seen[1][key][0])
            assert torch.equal(pair[1], seen[1][key][1])
            epoch, index = key
            reader = augmenter_of(trainer.config.data.augment).reader(dataset, "augment", 0, epoch)
            height, width = dataset.sizes[index]
            for found, expected in zip(pair, reader(index), strict=True):
                assert torch.equal(found[:, :height, :width], expected)

    def test_the_model_sees_the_inputs_and_the_objective_the_targets(self, dataset):
        changes = {"data.augment.erase": 1.0, "data.augment.erase_value": 1.0, "loss.beta": 0.0}
        trainer = Trainer(config(**changes), dataset)
        seen, compared = [], []
        infer, of = trainer.model.infer, trainer.learner.objective.of
        trainer.model.infer = lambda images, *rest: seen.append(images) or infer(images, *rest)
        trainer.learner.objective.of = lambda batch, *rest: compared.append(batch) or of(batch, *rest)
        next(trainer.fit())
        for inputs, batch in zip(seen, compared, strict=True):
            clean = load_batch(dataset, batch.indices.numpy(), 8, "cpu")
            assert torch.equal(batch.images, clean.images)
            assert not torch.equal(inputs, clean.images)
            assert inputs is batch.inputs

    def test_nothing_global_is_drawn(self, dataset):
        torch.manual_seed(3)
        before = torch.get_rng_state()
        first, _ = trained(dataset.cropped(13), SEVERAL)
        assert torch.equal(torch.get_rng_state(), before)
        torch.manual_seed(4)
        second, _ = trained(dataset.cropped(13), SEVERAL)
        assert_bit_equal(first.model.state_dict(), second.model.state_dict())

    def test_with_everything_off_no_reader_is_made_and_nothing_new_is_logged(self, dataset):
        trainer, epochs = trained(dataset, {"train.epochs": 1})
        assert trainer.learner._reader() is None
        assert not any("elbo" in key for key in epochs[0].metrics if key.startswith("train/"))
        irrelevant = {"data.augment.erase_max_area": 0.5, "data.augment.perspective_distortion": 0.9}
        assert epochs_of(trained(dataset, {"train.epochs": 1} | irrelevant)[1]) == epochs_of(epochs)


class TestEvaluation:
    def test_the_elbos_of_clean_and_augmented_training_images_are_logged_in_the_evaluation_likelihood(self, dataset):
        trainer, epochs = trained(dataset, NOISY)
        metrics = epochs[0].metrics
        reader = augmenter_of(trainer.config.data.augment).reader(dataset, "augment-evaluation")
        chosen = trainer.evaluator._scale_images
        assert len(chosen) == 9
        for name, of_image in (("clean", None), ("augmented", reader)):
            elbos = []
            for index in chosen:
                batch = load_batch(dataset, np.array([index]), 8, "cpu", of_image)
                noise = torch.randn(1, 3, generator=generator("evaluation", int(index)))
                trainer.model.eval()
                with torch.no_grad():
                    mu, logvar = trainer.model.encode(batch.inputs)
                    logits = trainer.model.decode(mu + torch.exp(logvar / 2) * noise, batch.padded_size)
                likelihood = LIKELIHOODS["gaussian"]
                error, dims = likelihood.error(logits, batch.images, batch.mask), real_dims(batch.mask, 1)
                posterior = torch.distributions.Normal(mu, torch.exp(logvar / 2))
                kl = torch.distributions.kl_divergence(posterior, torch.distributions.Normal(0.0, 1.0)).sum()
                elbos.append(-float(likelihood.nll(error, dims, metrics["val/scale"]) + kl))
            assert metrics[f"train/elbo_{name}"] == pytest.approx(np.mean(elbos), rel=1e-4)
        assert metrics["train/elbo_clean"] != metrics["train/elbo_augmented"]

    def test_validation_and_test_are_measured_on_clean_images(self, dataset):
        trainer, epochs = trained(dataset, NOISY)
        plain = Evaluator(config(), dataset, "cpu")
        measured = plain.evaluate(trainer.model, "val", 1.0).metrics
        assert {key: epochs[0].metrics[key] for key in measured} == measured
        tested = trainer.test().metrics
        assert not any(key.startswith("train/") for key in tested)
        assert plain.evaluate(trainer.model, "test", 1.0).metrics == tested

    def test_a_likelihood_without_a_scale_has_them_too(self, dataset):
        _, epochs = trained(dataset, NOISY | {"evaluate.likelihood": "bernoulli"})
        assert {"train/elbo_clean", "train/elbo_augmented"} <= epochs[0].metrics.keys()

    def test_figures_show_what_was_corrupted_and_what_became_of_it(self, dataset, tmp_path):
        trainer = Trainer(config(**NOISY), dataset)
        targets, clean = trainer.evaluator.examples(trainer.model, 3)
        corrupted, restored = trainer.evaluator.corrupted_examples(trainer.model, 3)
        for target, noisy in zip(targets, corrupted, strict=True):
            assert 0.1 < float((noisy - target).std()) < 0.35  # noise alone: nothing is flipped
        assert not torch.equal(clean[0], restored[0])
        flips = Trainer(config(**{"data.augment.flip_vertical": 1.0}), dataset)
        assert flips.evaluator.corrupted_examples(flips.model, 3) is None
        heights = []
        for number, one in enumerate((trainer, flips)):
            path = write_figures(one.model, one.evaluator, tmp_path / str(number), 1, {})[0]
            with path.open("rb") as file:
                file.seek(20)
                heights.append(int.from_bytes(file.read(4), "big"))
        assert heights[0] > 1.4 * heights[1]


def test_augmentation_is_part_of_a_runs_identity():
    plain = RunConfig()
    assert "augment" in identity(plain)["data"]
    ids = {run_id(parse_config({"data": {"augment": dict(e.shown)}}, "test"), "0") for e in AUGMENTATIONS.values()}
    assert len(ids | {run_id(plain, "0")}) == len(AUGMENTATIONS) + 1
