"""The family cvae: what known and unknown labels cost, who may see which, and how it is measured and drawn."""

import copy
import math

import numpy as np
import pytest
import torch
from torch.distributions import Bernoulli, Categorical, Laplace, Normal, kl_divergence

from vae_core.config import override, parse_config, run_id
from vae_core.data.batches import load_batch, micro_batches
from vae_core.data.labels import label_mistakes, visible_labels
from vae_core.data.preparation import prepare
from vae_core.errors import UserError
from vae_core.evaluation import Evaluator
from vae_core.events import Epoch, Step
from vae_core.figures import prior_samples, write_figures
from vae_core.models.vae import build_model, check_on_meta
from vae_core.objective import TrainingObjective
from vae_core.trainer import Trainer

CLASSES, LATENT = 3, 4
TREE = {
    "data": {"pad_multiple": 8, "width": 16},
    "model": {
        "family": "cvae",
        "network": "conv",
        "latent_dim": LATENT,
        "encoder_widths": [4, 8],
        "decoder_widths": [8, 4],
        "spp_levels": [1, 2],
        "decoder_grid": [3, 2],
        "classification": 7.0,
    },
    "optim": {"lr": 1e-2},
    "train": {"epochs": 2, "effective_batch": 9, "device": "cpu"},
    "evaluate": {"lpips": "off"},
}


def config(**changes):
    return parse_config(override(TREE, changes), "test")


def model_of(chosen, seed=1):
    return build_model(chosen.model, 1, seed, "cpu", CLASSES)


def objective_of(chosen):
    return TrainingObjective(chosen.loss, epochs=2, latent_dim=LATENT, smallest_side=13, device="cpu")


def normal(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def dataset(make_dataset):
    return make_dataset(45, classes=CLASSES)


def known_batch(dataset, labels=None):
    """Return four images of 16 x 16 px, of which some are padded from 13 x 16."""
    indices = np.flatnonzero(dataset.sizes[:, 0] <= 16)[:4]
    return load_batch(dataset, indices, 8, "cpu", labels=labels)


def unknown_batch(dataset):
    return known_batch(dataset, np.full(len(dataset), -1))


def computed(model, objective, batch, noise):
    latent = model.infer(batch.inputs, noise, batch.labels)
    logits = model.decode(latent.z, batch.padded_size, latent.labels, latent.skips)
    return objective.of(batch, logits, latent, 0.0)


def one_hot(label):
    return torch.eye(CLASSES)[label]


def cost_by_hand(model, kind, sigma, beta, batch, noise, row, label):
    """Return -ln p(x|y,z) + beta * KL(q(z|x,y) || p(z)) of one image, and q(y|x), by torch.distributions."""
    features = model.encoder(batch.images[row : row + 1])
    q = Categorical(logits=model.classifier(features))
    told = torch.relu(features + model.of_label.weight[:, label])
    logvar = model.logvar_bound * torch.tanh(model.to_logvar(told) / model.logvar_bound)
    posterior = Normal(model.to_mu(told), torch.exp(logvar / 2))
    z = posterior.loc + posterior.scale * noise[row]
    height, width = batch.sizes[row].tolist()
    logits = model.decoder(torch.cat([z, one_hot(label)[None]], dim=1), batch.padded_size)[0, 0, :height, :width]
    image = batch.images[row, 0, :height, :width]
    likelihoods = {
        "gaussian": lambda: Normal(torch.sigmoid(logits), sigma),
        "laplace": lambda: Laplace(torch.sigmoid(logits), sigma),
        "bernoulli": lambda: Bernoulli(logits=logits, validate_args=False),
    }
    reconstruction = -likelihoods[kind]().log_prob(image).sum()
    return reconstruction + beta * kl_divergence(posterior, Normal(0.0, 1.0)).sum(), q


def unlabelled_by_hand(*arguments, row):
    total = 0.0
    for label in range(CLASSES):
        cost, q = cost_by_hand(*arguments, row, label)
        total = total + q.probs[0, label] * (cost + math.log(CLASSES))
    return total - q.entropy()[0]


def labelled_by_hand(*arguments, row, label, weight):
    cost, q = cost_by_hand(*arguments, row, label)
    return cost + math.log(CLASSES) - weight * q.log_prob(torch.tensor([label]))[0]


@pytest.mark.parametrize("kind", ["gaussian", "laplace", "bernoulli"])
class TestTheFormula:
    beta, sigma = 0.7, 0.3

    @pytest.fixture
    def parts(self, kind, dataset):
        chosen = config(**{"loss.reconstruction": kind, "loss.beta": self.beta, "loss.sigma": self.sigma})
        return model_of(chosen), objective_of(chosen), normal(4, LATENT)

    def check(self, model, found, expected):
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-4)
        weights = list(model.parameters())
        for left, right, (name, _) in zip(
            torch.autograd.grad(found.sum(), weights, retain_graph=True),
            torch.autograd.grad(expected.sum(), weights),
            model.named_parameters(),
            strict=True,
        ):
            torch.testing.assert_close(left, right, rtol=1e-3, atol=1e-3, msg=name)

    def test_unknown_labels_are_averaged_as_a_loop_over_them_does(self, kind, parts, dataset):
        model, objective, noise = parts
        batch = unknown_batch(dataset)
        assert {16, 13} == set(batch.sizes[:, 0].tolist())  # padding too
        by_hand = (model, kind, self.sigma, self.beta, batch, noise)
        expected = torch.stack([unlabelled_by_hand(*by_hand, row=row) for row in range(4)])
        self.check(model, computed(model, objective, batch, noise).total, expected)

    def test_a_known_label_costs_its_prior_and_its_cross_entropy(self, kind, parts, dataset):
        model, objective, noise = parts
        batch = known_batch(dataset)
        by_hand = (model, kind, self.sigma, self.beta, batch, noise)
        labels = batch.labels.tolist()
        assert len(set(labels)) > 1
        expected = torch.stack(
            [labelled_by_hand(*by_hand, row=row, label=label, weight=7.0) for row, label in enumerate(labels)]
        )
        self.check(model, computed(model, objective, batch, noise).total, expected)


def test_the_parts_are_those_of_the_total(dataset):
    chosen = config(**{"loss.terms.gradient": 0.5, "loss.beta": 0.5})
    model, objective = model_of(chosen), objective_of(chosen)
    for batch in (known_batch(dataset), unknown_batch(dataset)):
        found = computed(model, objective, batch, normal(4, LATENT))
        parts = found.parts
        weighted = found.reconstruction + 0.5 * found.kl + 0.5 * parts["term_gradient"]
        torch.testing.assert_close(found.total, weighted + parts["label_kl"] + parts["classification"])
        assert (parts["label_kl"] <= math.log(CLASSES) + 1e-6).all()


def test_a_term_of_an_unknown_label_is_its_mean_over_the_labels(dataset):
    chosen = config(**{"loss.terms.gradient": 0.5})
    model, objective, noise = model_of(chosen), objective_of(chosen), normal(4, LATENT)
    unknown = unknown_batch(dataset)
    found = computed(model, objective, unknown, noise).parts["term_gradient"]
    expected = 0.0
    for label in range(CLASSES):
        given = known_batch(dataset, np.full(len(dataset), label))
        q = model.infer(given.inputs, noise, given.labels).label_probabilities[:, label]
        expected = expected + q.detach() * computed(model, objective, given, noise).parts["term_gradient"]
    torch.testing.assert_close(found, expected)


def test_without_labels_all_are_unknown(dataset):
    model, batch, noise = model_of(config()), unknown_batch(dataset), normal(4, LATENT)
    told, untold = model.infer(batch.inputs, noise, batch.labels), model.infer(batch.inputs, noise)
    assert torch.equal(untold.labels, torch.arange(CLASSES).repeat(4))
    for name in ("z", "kl", "labels", "label_probabilities"):
        assert torch.equal(getattr(told, name), getattr(untold, name)), name
    assert all(torch.equal(loss, untold.losses[name]) for name, loss in told.losses.items())


def test_everything_about_labels_is_float32_under_autocast(dataset):
    chosen = config()
    model, objective, batch = model_of(chosen), objective_of(chosen), unknown_batch(dataset)
    plain = computed(model, objective, batch, normal(4, LATENT)).total
    with torch.autocast("cpu", dtype=torch.bfloat16):
        latent = model.infer(batch.inputs, normal(4, LATENT), batch.labels)
        logits = model.decode(latent.z, batch.padded_size, latent.labels, latent.skips)
    assert logits.dtype == torch.bfloat16
    for value in (latent.label_probabilities, latent.kl, latent.z, *latent.losses.values()):
        assert value.dtype == torch.float32
    torch.testing.assert_close(objective.of(batch, logits, latent, 0.0).total, plain, rtol=0.02, atol=0.5)


COUPLED = [
    {"loss.sigma_mode": "optimal", "loss.terms.gradient": 0.5},
    {"loss.sigma_mode": "learned", "loss.kl_control": "free_bits", "loss.reconstruction": "laplace"},
    {"loss.kl_control": "capacity", "loss.capacity": 3.0, "loss.reconstruction": "bernoulli"},
    {"loss.kl_control": "pi", "loss.terms.ssim": 0.5, "loss.term_weights": "learned"},
]


@pytest.mark.parametrize("changes", COUPLED, ids=lambda changes: "-".join(map(str, changes.values())))
def test_with_rules_that_watch_the_steps_how_a_step_is_split_changes_rounding_alone(changes, dataset):
    results = []
    for budget in (1, 10**9):
        given = {"data.labelled_fraction": 0.5, "optim.algorithm": "sgd", "optim.momentum": 0.0, "optim.lr": 1e-4}
        trainer = Trainer(config(**given, **changes), dataset, pixel_budget=budget)
        steps = trainer.fit()
        for _ in range(3):
            assert isinstance(next(steps), Step)
        state = trainer.state_dict()
        results.append((state["model"] | state["objective"], trainer.learner.sums.means()))
    assert results[0][1] == pytest.approx(results[1][1], rel=1e-4)
    for name, tensor in results[0][0].items():
        torch.testing.assert_close(tensor, results[1][0][name], rtol=1e-4, atol=1e-5, msg=name)


class TestVisibleLabels:
    @pytest.fixture
    def dataset(self, make_dataset):
        dataset = make_dataset(300, classes=CLASSES)
        dataset.hashes = [f"{index * 7919 % 1000:032d}" for index in range(300)]
        return dataset

    def seen(self, dataset, fraction, seed=0):
        labels = visible_labels(dataset, fraction=fraction, seed=seed)
        kept = set(np.flatnonzero(labels >= 0).tolist())
        assert (labels[sorted(kept)] == dataset.labels[sorted(kept)]).all()
        return kept & set(dataset.splits["train"].tolist()), kept

    @pytest.mark.parametrize("fraction", [0.05, 0.3, 1.0])
    def test_each_class_keeps_its_share_and_what_is_measured_keeps_all(self, dataset, fraction):
        kept, all_kept = self.seen(dataset, fraction)
        assert all_kept - kept == {*dataset.splits["val"].tolist(), *dataset.splits["test"].tolist()}
        for label in range(CLASSES):
            own = [index for index in dataset.splits["train"].tolist() if dataset.labels[index] == label]
            assert len(kept & set(own)) == round(fraction * len(own))

    def test_no_class_is_lost_and_a_smaller_share_is_part_of_a_larger_one(self, dataset):
        few, some, many = (self.seen(dataset, fraction)[0] for fraction in (1e-6, 0.1, 0.5))
        assert few < some < many
        assert {int(dataset.labels[index]) for index in few} == set(range(CLASSES))
        assert len(few) == CLASSES

    def test_the_choice_depends_on_the_seed_and_on_the_content_alone(self, dataset):
        first, _ = self.seen(dataset, 0.3)
        assert first == self.seen(dataset, 0.3)[0]
        assert first != self.seen(dataset, 0.3, seed=1)[0]
        chosen = {dataset.hashes[index] for index in first}
        moved = copy.copy(dataset)  # the same images in another order
        order = np.random.default_rng(0).permutation(300)
        moved.hashes = [dataset.hashes[index] for index in order]
        moved.labels = dataset.labels[order]
        moved.splits = {name: np.flatnonzero(np.isin(order, of)) for name, of in dataset.splits.items()}
        assert {moved.hashes[index] for index in self.seen(moved, 0.3)[0]} == chosen


def weights_of(chosen, dataset):
    trainer = Trainer(chosen, dataset)
    epochs = [event for event in trainer.fit() if isinstance(event, Epoch)]
    return trainer.model.state_dict(), epochs[-1].metrics


def with_labels(dataset, labels):
    other = copy.copy(dataset)
    other.labels = labels
    return other


@pytest.mark.parametrize("unlabelled", ["use", "drop"])
def test_hidden_labels_are_not_seen(dataset, unlabelled):
    kept = visible_labels(dataset, fraction=0.4, seed=0)
    chosen = {"data.unlabelled": unlabelled}
    hidden, metrics = weights_of(config(**chosen, **{"data.labelled_fraction": 0.4}), dataset)
    really_unknown, _ = weights_of(config(**chosen), with_labels(dataset, kept))
    for name, tensor in hidden.items():
        assert torch.equal(tensor, really_unknown[name]), name
    all_seen, _ = weights_of(config(), dataset)
    assert any(not torch.equal(tensor, all_seen[name]) for name, tensor in hidden.items())
    count = {"use": 27, "drop": 12}[unlabelled]
    assert metrics["time/images_per_s"] * metrics["time/epoch_s"] == pytest.approx(count)


def test_images_without_a_label_count_once_for_each_label_in_the_budget(dataset):
    indices = dataset.splits["train"][:12]
    copies = np.array([1, 3] * 6)
    groups = micro_batches(dataset, indices, 8, 2 * 3 * 24 * 16, copies)
    assert sorted(np.concatenate(groups).tolist()) == list(range(12))
    for group in groups:
        (times,) = set(copies[group].tolist())
        height, width = (-(-dataset.sizes[indices[group[0]]] // 8) * 8).tolist()
        assert len(group) * times * height * width <= 2 * 3 * 24 * 16 or len(group) == 1
    assert len(groups) > len(micro_batches(dataset, indices, 8, 2 * 3 * 24 * 16))


class TestMeasuring:
    def test_accuracy_and_elbo_are_those_of_the_true_labels(self, dataset):
        chosen = config(**{"data.labelled_fraction": 0.2, "evaluate.likelihood": "bernoulli"})
        model = model_of(chosen).eval()
        evaluator = Evaluator(chosen, dataset, "cpu")
        metrics = evaluator.evaluate(model, "test", 1.0).metrics
        correct, elbos = [], []
        for index in dataset.splits["test"].tolist():
            batch = load_batch(dataset, np.array([index]), 8, "cpu")
            noise = evaluator._noise_of(index, LATENT)[None].clone()
            cost, q = cost_by_hand(model, "bernoulli", 1.0, 1.0, batch, noise, 0, int(dataset.labels[index]))
            correct.append(int(q.probs.argmax()) == dataset.labels[index])
            elbos.append(-cost.item())
        assert metrics["test/accuracy"] == pytest.approx(np.mean(correct))
        assert metrics["test/elbo"] == pytest.approx(np.mean(elbos), rel=1e-5)
        others = with_labels(dataset, (dataset.labels + 1) % CLASSES)
        assert (
            Evaluator(chosen, others, "cpu").evaluate(model, "test", 1.0).metrics["test/elbo"] != metrics["test/elbo"]
        )

    def test_a_perfect_classifier_is_never_wrong(self, dataset):
        model = model_of(config())
        torch.nn.init.zeros_(model.classifier.weight)
        model.classifier.bias.data = torch.tensor([0.0, 9.0, 0.0])
        ones = with_labels(dataset, np.ones(len(dataset), dtype=np.int64))
        assert Evaluator(config(), ones, "cpu").evaluate(model, "val", 1.0).metrics["val/accuracy"] == 1.0

    def test_without_a_classifier_there_is_no_accuracy(self, dataset):
        chosen = config(**{"model.classification": 0.0})
        model = model_of(chosen)
        assert not any("classifier" in name for name, _ in model.named_parameters())
        assert "val/accuracy" not in Evaluator(chosen, dataset, "cpu").evaluate(model, "val", 1.0).metrics
        _, metrics = weights_of(chosen, dataset)
        assert metrics["train/label_kl"] == pytest.approx(math.log(CLASSES))

    def test_the_exchange_leaves_each_image_its_own_label(self, dataset):
        model = model_of(config())
        model.decoder.project.weight.data[:, :LATENT] = 0.0  # z says nothing, the label everything
        metrics = Evaluator(config(), dataset, "cpu").evaluate(model, "test", 1.0).metrics
        assert abs(metrics["test/exchange_cost"]) < 1e-9

    def test_the_tag_says_what_the_elbo_is_conditional_on(self, dataset):
        assert Trainer(config(), dataset).tags["elbo"] == "conditional on the label"
        assert "elbo" not in Trainer(config(**{"model.family": "vae"}), dataset).tags

    def test_images_of_unknown_label_are_left_out_of_the_scale(self, dataset):
        model = model_of(config())
        labels = dataset.labels.copy()
        labels[dataset.splits["train"][::2]] = -1
        result = Evaluator(config(), with_labels(dataset, labels), "cpu").evaluate(model, "val", 1.0)
        assert math.isfinite(result.metrics["val/scale"])


class TestDrawing:
    def test_samples_of_a_label_are_decoded_for_it_from_the_same_z(self):
        model = model_of(config()).eval()
        noise_alone = prior_samples(model, 3, (13, 16), 8, label=2)
        assert torch.equal(torch.stack(noise_alone), torch.stack(prior_samples(model, 3, (13, 16), 8, label=2)))
        assert not torch.equal(noise_alone[0], prior_samples(model, 3, (13, 16), 8, label=1)[0])
        model.decoder.project.weight.data[:, LATENT:] = 0.0  # the label says nothing: z is left
        assert torch.equal(prior_samples(model, 3, (13, 16), 8, 0)[1], prior_samples(model, 3, (13, 16), 8, 1)[1])

    def test_the_page_of_samples_has_a_row_for_each_label(self, dataset, tmp_path, monkeypatch):
        pages = {}
        monkeypatch.setattr(
            "vae_core.figures.draw_labelled_samples", lambda rows, title: pages.update(rows) or title.encode()
        )
        write_figures(model_of(config()), Evaluator(config(), dataset, "cpu"), tmp_path, 4, {})
        assert list(pages) == ["class-0", "class-1", "class-2"]
        assert (tmp_path / "prior_samples_0004.png").read_bytes() == b"epoch 4"
        expected = prior_samples(model_of(config()), 8, (16, 16), 8, label=2)
        assert torch.equal(torch.stack(pages["class-2"]), torch.stack(expected))

    def test_the_page_is_a_picture(self, dataset, tmp_path):
        paths = write_figures(model_of(config()), Evaluator(config(), dataset, "cpu"), tmp_path, 4, {})
        assert paths[1].read_bytes().startswith(b"\x89PNG")


class TestRefusals:
    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            (
                {"model.family": "vae", "data.labelled_fraction": 0.1},
                r"data\.labelled_fraction: 0.1 .* do nothing with model\.family: vae; take cvae",
            ),
            ({"model.family": "vae", "data.unlabelled": "drop"}, r"data\.unlabelled: drop do nothing"),
            (
                {"model.classification": 0.0, "data.labelled_fraction": 0.1},
                r"model\.classification: 0 is no classifier",
            ),
            ({"data.labelled_fraction": 0.0}, r"data\.labelled_fraction: should be greater than 0"),
            ({"data.unlabelled": "guess"}, r"data\.unlabelled: should be 'use' or 'drop'"),
        ],
    )
    def test_settings_without_a_use(self, changes, message):
        with pytest.raises(UserError, match=message):
            config(**changes)

    def test_dropping_needs_no_classifier(self):
        config(**{"model.classification": 0.0, "data.labelled_fraction": 0.1, "data.unlabelled": "drop"})

    def test_data_without_labels(self, make_dataset):
        message = r"model\.family: cvae needs labels of at least 2 classes, and the data set has 0"
        assert len(list(label_mistakes(config(), make_dataset(20)))) == 1
        with pytest.raises(UserError, match=message):
            Trainer(config(), make_dataset(20))
        assert list(label_mistakes(config(**{"model.family": "vae"}), make_dataset(20))) == []
        with pytest.raises(UserError, match=r"model\.family: cvae needs a data set with labels of at least 2 classes"):
            check_on_meta(config(), [(16, 16)])

    def test_images_without_the_label_that_they_are_measured_with(self, dataset):
        labels = dataset.labels.copy()
        labels[dataset.splits["val"][:2]] = -1
        (found,) = label_mistakes(config(), with_labels(dataset, labels))
        assert "measured given the label, and 2 of 9 val images have none" in found

    def test_training_images_without_a_label_and_without_a_classifier(self, dataset):
        labels = dataset.labels.copy()
        labels[dataset.splits["train"][:5]] = -1
        partly = with_labels(dataset, labels)
        (found,) = label_mistakes(config(**{"model.classification": 0.0}), partly)
        assert "model.classification: 0 is no classifier, which the 5 training images without a label need" in found
        dropped = config(**{"model.classification": 0.0, "data.unlabelled": "drop"})
        assert list(label_mistakes(dropped, partly)) == list(label_mistakes(config(), partly)) == []

    def test_training_images_without_any_label(self, dataset):
        labels = dataset.labels.copy()
        labels[dataset.splits["train"]] = -1
        (found,) = label_mistakes(config(), with_labels(dataset, labels))
        assert "no training image has one" in found

    @pytest.mark.parametrize(
        ("labels", "message"),
        [
            ([0, 1], "needs the labels of all 4 images"),
            ([0, 1, -1, 2], "must come in batches of their own"),
        ],
    )
    def test_labels_that_a_model_cannot_infer_with(self, labels, message):
        with pytest.raises(ValueError, match=message):
            model_of(config()).infer(torch.zeros(4, 1, 16, 16), normal(4, LATENT), torch.tensor(labels))

    @pytest.mark.parametrize("labels", [None, [-1, -1]])
    def test_unknown_labels_without_a_classifier(self, labels):
        model = model_of(config(**{"model.classification": 0.0}))
        labels = None if labels is None else torch.tensor(labels)
        with pytest.raises(ValueError, match="unknown labels need a classifier"):
            model.infer(torch.zeros(2, 1, 16, 16), normal(2, LATENT), labels)

    def test_decoding_without_labels(self):
        with pytest.raises(ValueError, match="decodes for a label; give labels"):
            model_of(config()).decode(normal(2, LATENT), (16, 16))


def test_the_labelled_share_is_part_of_the_run_but_not_of_the_prepared_data(tmp_path, monkeypatch):
    monkeypatch.setenv("VAE_SWEEP_CACHE", str(tmp_path))
    few, drop, all_seen = (
        config(**{"data.source": "synthetic", "data.count": 20, "data.width": 16, "data.max_height": 32, **changes})
        for changes in ({"data.labelled_fraction": 0.5}, {"data.unlabelled": "drop"}, {})
    )
    fingerprints = {prepare(chosen.data).fingerprint for chosen in (few, drop, all_seen)}
    assert len(fingerprints) == len(list(tmp_path.iterdir())) == 1
    assert len({run_id(chosen, "x") for chosen in (few, drop, all_seen)}) == 3
