"""The training objective: composition, independence of the batch, learned scales and weights, phases, resuming."""

import math
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from support.training import epochs_of, through_disk

from vae_core.config import RunConfig, override, parse_config
from vae_core.data.batches import Batch, load_batch
from vae_core.errors import UserError
from vae_core.events import Epoch, Step
from vae_core.losses import effective_beta, negative_log_likelihood
from vae_core.models.latent import Latent
from vae_core.objective import TrainingObjective, loss_mistakes, uncertain
from vae_core.optimisation import Optimisation
from vae_core.trainer import Trainer

TEST_DATA = Path(os.environ.get("VAE_SWEEP_TEST_DATA", Path(__file__).parents[2] / "../shared/data")).resolve()
TORCH_HOME = TEST_DATA / "torch_home"
needs_weights = pytest.mark.skipif(
    not (TORCH_HOME / "hub/checkpoints/squeezenet1_1-b8a52dc0.pth").is_file(),
    reason=f"no SqueezeNet weights under {TORCH_HOME}; set VAE_SWEEP_TEST_DATA",
)
SMALL = {
    "model": {
        "latent_dim": 3,
        "encoder_widths": [4, 8],
        "decoder_widths": [8, 4],
        "norm_groups": 2,
        "stem_kernel": 3,
        "spp_levels": [4],
        "cbam": False,
    },
    "optim": {"lr": 1e-2},
    "train": {"epochs": 3, "effective_batch": 12, "device": "cpu"},
    "evaluate": {"lpips": "off"},
    "data": {"pad_multiple": 8},
}


@pytest.fixture(autouse=True)
def torch_home(monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(TORCH_HOME))


@pytest.fixture
def dataset(make_dataset):
    return make_dataset(count=40)


def configured(**changes):
    return parse_config(override(SMALL, changes), "test")


def built(smallest_side=16, epochs=10, **changes):
    loss = configured(**{f"loss.{path.replace('__', '.')}": value for path, value in changes.items()}).loss
    return TrainingObjective(loss, epochs=epochs, latent_dim=3, smallest_side=smallest_side, device="cpu")


def randn(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def batch_of(images):
    sizes = torch.tensor([images.shape[-2:]] * len(images))
    mask = torch.ones_like(images[:, :1])
    indices, labels = torch.arange(len(images)), torch.full((len(images),), -1)
    return Batch(indices=indices, images=images, inputs=images, mask=mask, sizes=sizes, labels=labels)


def latent_of(kl, **losses):
    return Latent(z=kl, mu=kl, logvar=kl, kl=kl, losses=losses)


def sample(count=4, side=16):
    return torch.sigmoid(randn(count, 1, side, side)), randn(count, 1, side, side, seed=1), randn(count, 3).exp()


# Everything that may be switched on beside the plain objective, and what resuming has to carry on.
VARIANTS = {
    "plain": {},
    "sigma learned": {"loss.sigma_mode": "learned", "loss.sigma": 0.2},
    "sigma optimal laplace": {"loss.sigma_mode": "optimal", "loss.reconstruction": "laplace"},
    "free bits": {"loss.kl_control": "free_bits", "loss.free_bits": 0.02, "loss.beta": 3.0},
    "capacity": {"loss.kl_control": "capacity", "loss.capacity": 0.5, "loss.capacity_gamma": 5.0},
    "pi": {"loss.kl_control": "pi", "loss.kl_target": 0.05, "loss.pi_ki": 0.1},
    "terms": {"loss.terms.ssim": 0.1, "loss.terms.gradient": 1.0},
    "learned weights": {"loss.terms.ssim": 0.1, "loss.terms.gradient": 1.0, "loss.term_weights": "learned"},
    "perceptual": {"loss.terms.perceptual": 0.01, "loss.perceptual.weights": "random"},
    "phases": {"loss.phases": [{"epochs": 1, "beta": 0}, {"epochs": 1, "beta": 0.5, "terms": {"gradient": 0.05}}]},
}
variants = pytest.mark.parametrize("changes", VARIANTS.values(), ids=VARIANTS.keys())


class TestComposition:
    def test_it_is_likelihood_plus_beta_kl_plus_weighted_terms(self):
        images, logits, kl = sample()
        batch = batch_of(images)
        found = built(beta=2.0, sigma=0.3, terms__ssim=0.5, terms__gradient=3.0).of(batch, logits, latent_of(kl), 0.0)
        nll = negative_log_likelihood("gaussian", logits, images, batch.mask, 0.3)
        terms = 0.5 * found.parts["term_ssim"] + 3.0 * found.parts["term_gradient"]
        assert torch.equal(found.reconstruction, nll)
        assert torch.equal(found.kl, kl.sum(1))
        torch.testing.assert_close(found.total, nll + 2.0 * kl.sum(1) + terms)

    def test_the_model_s_own_losses_count_as_they_are(self):
        images, logits, kl = sample()
        own = torch.tensor([1.0, 2.0, 3.0, 4.0])
        plain = built().of(batch_of(images), logits, latent_of(kl), 0.0)
        found = built().of(batch_of(images), logits, latent_of(kl, commitment=own), 0.0)
        torch.testing.assert_close(found.total - plain.total, own, rtol=0, atol=1e-4)
        assert found.parts["commitment"].tolist() == own.tolist()

    def test_frozen_networks_are_neither_parameters_nor_state(self):
        objective = built(terms__perceptual=1.0, perceptual__weights="random")
        assert list(objective.parameters()) == []
        assert objective.state_dict() == {}

    def test_phases_set_beta_and_weights_epoch_by_epoch(self):
        """The published curriculum: 50 epochs of reconstruction, 100 of balance, 50 of everything."""
        phases = [
            {"epochs": 50, "beta": 0.0, "terms": {"perceptual": 0.0}},
            {"epochs": 100, "beta": 0.5, "terms": {"perceptual": 0.05}},
            {"epochs": 50, "beta": 1.0, "terms": {"perceptual": 0.1}},
        ]
        objective = built(phases=phases, perceptual__weights="random", epochs=200)
        betas = [objective.beta(float(epoch)) for epoch in range(200)]
        assert betas == [0.0] * 50 + [0.5] * 100 + [1.0] * 50
        images, logits, kl = sample(1)
        for epoch, beta, weight in ((49.9, 0.0, 0.0), (50, 0.5, 0.05), (149.9, 0.5, 0.05), (150, 1.0, 0.1)):
            found = objective.of(batch_of(images), logits, latent_of(kl), epoch)
            term = found.parts.get("term_perceptual", torch.zeros(1))
            assert ("term_perceptual" in found.parts) == (weight > 0)
            expected = found.reconstruction + beta * found.kl + weight * term
            torch.testing.assert_close(found.total, expected)

    def test_a_phase_keeps_what_it_does_not_set(self):
        objective = built(phases=[{"epochs": 1}, {"epochs": 1, "beta": 3.0}], beta=0.5, terms__ssim=0.1)
        assert [objective.beta(position) for position in (0.0, 0.9, 1.0)] == [0.5, 0.5, 3.0]


@variants
class TestIndependence:
    def test_an_image_alone_and_in_any_batch_has_the_same_terms(self, dataset, changes):
        trainer = Trainer(configured(**changes), dataset)
        next(trainer.fit())  # statistics of a step
        indices = np.flatnonzero((dataset.sizes == (24, 16)).all(1))[:6]
        batch, noise = load_batch(dataset, indices, 8, "cpu"), randn(6, 3)

        @torch.no_grad()
        def terms(rows):
            part = load_batch(dataset, indices[rows], 8, "cpu")
            found, _ = trainer.learner._objective_of(part, noise[rows])
            beta = found.parts.get(
                "effective_beta", torch.full((len(rows),), trainer.learner.objective.scheduled_beta(0.1))
            )
            return torch.stack([found.reconstruction, found.kl, beta, found.total])

        together = terms(list(range(len(batch.images))))
        for rows in ([0], [3], [1, 4], [5, 2, 0]):
            torch.testing.assert_close(terms(rows), together[:, rows], rtol=1e-5, atol=1e-7)

    def test_accumulation_takes_the_same_step(self, dataset, changes):
        """The second step, which statistics of the first one shape, by plain descent, where a gradient shows."""
        descent = {"optim.algorithm": "sgd", "optim.momentum": 0.0, "optim.lr": 1e-5}
        found = []
        for budget in (1, 24 * 16 * 3, 10**9):
            trainer = Trainer(configured(**changes, **descent), dataset, pixel_budget=budget)
            events = trainer.fit()
            next(events), next(events)
            found.append({**trainer.model.state_dict(), **trainer.learner.objective.state_dict()})
        for other in found[1:]:
            for name, tensor in found[0].items():
                torch.testing.assert_close(other[name], tensor, rtol=1e-5, atol=1e-7)

    def test_a_run_resumed_in_mid_epoch_ends_bit_equal(self, dataset, changes):
        whole = Trainer(configured(**changes), dataset)
        states, events = [], []
        for event in whole.fit():
            events.append(event)
            if isinstance(event, Step) and event.step in (1, 3, 4):
                states.append((through_disk(whole.state_dict()), whole.epoch))
        for state, done in states:
            resumed = Trainer(configured(**changes), dataset)
            resumed.load_state_dict(state)
            assert epochs_of(resumed.fit()) == epochs_of(events)[done:]
            ours, theirs = resumed.state_dict(), whole.state_dict()
            for part in ("model", "objective"):
                assert ours[part].keys() == theirs[part].keys()
                assert all(torch.equal(ours[part][name], tensor) for name, tensor in theirs[part].items())
            assert resumed.test().metrics == whole.test().metrics


@pytest.mark.parametrize("kind", ["gaussian", "laplace", "bernoulli"])
def test_a_tiled_image_has_the_same_likelihood_per_pixel_and_effective_beta(kind):
    """A reconstruction and its target of 512 x 512 px, tiled to 2048 x 1024; the KL is that of the same code."""
    images, logits, kl = torch.sigmoid(randn(1, 1, 512, 512)), randn(1, 1, 512, 512, seed=1), randn(1, 3).exp()
    found = []
    for rows, columns in ((1, 1), (4, 2)):
        objective = built(reconstruction=kind, beta=0.7)
        tiles = [each.repeat(1, 1, rows, columns) for each in (images, logits)]
        terms = objective.of(batch_of(tiles[0]), tiles[1], latent_of(kl), 0.0)
        likelihood_coefficient = 1.0  # of a sum of nats
        kl_coefficient = ((terms.total - terms.reconstruction).double() / terms.kl.double()).item()
        found.append(
            (
                terms.reconstruction.item() / tiles[0].numel(),
                effective_beta(objective.beta(0.0), likelihood_coefficient),
            )
        )
        assert kl_coefficient == pytest.approx(0.7, rel=0.05)  # float32 rounding of a sum of 2 million values
    assert found[1] == pytest.approx(found[0], rel=1e-6)


@pytest.mark.parametrize(
    "term",
    [
        pytest.param(name, marks=needs_weights) if name == "lpips" else name
        for name in type(RunConfig().loss.terms).model_fields
    ],
)
@pytest.mark.parametrize("blank", [False, True], ids=["page", "blank"])
def test_every_term_alone_moves_the_decoder(term, blank, make_dataset):
    dataset = make_dataset(count=10, sizes=((24, 24),))
    config = configured(**{f"loss.terms.{term}": 1.0, "loss.perceptual.weights": "random"})
    trainer = Trainer(config, dataset)
    batch = load_batch(dataset, dataset.splits["train"], 8, "cpu")
    if blank:
        batch = batch_of(torch.full_like(batch.images, 1.0))
    latent = trainer.model.infer(batch.images, randn(len(batch.images), 3))
    logits = trainer.model.decode(latent.z, (24, 24))
    (name,) = (
        name for name in trainer.learner.objective.of(batch, logits, latent, 0.0).parts if name.startswith("term_")
    )
    trainer.learner.objective._terms[term](logits, batch).sum().backward()
    gradients = [weight.grad for weight in trainer.model.decoder.parameters() if weight.grad is not None]
    assert name == ("term_ms_ssim_2" if term == "ms_ssim" else f"term_{term}")
    assert all(torch.isfinite(gradient).all() for gradient in gradients)
    assert max(gradient.abs().max() for gradient in gradients) > 0


class TestSigma:
    def mse(self, trainer, dataset):
        total, count = 0.0, 0
        batch = load_batch(dataset, dataset.splits["train"], 8, "cpu")
        with torch.no_grad():
            for seed in range(4):
                latent = trainer.model.infer(batch.images, randn(len(batch.images), 3, seed=seed))
                error = torch.sigmoid(trainer.model.decode(latent.z, batch.padded_size)) - batch.images
                total, count = total + error.square().sum().item(), count + error.numel()
        return total / count

    @pytest.mark.parametrize("mode", ["learned", "optimal"])
    def test_its_square_ends_at_the_training_error(self, mode, make_dataset):
        dataset = make_dataset(count=80, sizes=((16, 16),))
        changes = {
            "loss.sigma_mode": mode,
            "loss.sigma": 0.25,
            "optim.lr_schedule": "cosine",
            "optim.min_lr": 1e-3,
            "optim.adam_betas": [0.9, 0.98],
            "train.epochs": 150,
            "optim.weight_decay": 0.1,
            "optim.algorithm": "adamw",
            "evaluate.every_epochs": 100,
        }
        trainer = Trainer(configured(**changes), dataset)
        *_, last = [event for event in trainer.fit() if isinstance(event, Epoch)]
        assert trainer.learner.objective.scale() ** 2 == pytest.approx(self.mse(trainer, dataset), rel=0.05)
        assert last.metrics["train/sigma"] == pytest.approx(trainer.learner.objective.scale(), rel=0.02)

    def test_the_first_step_has_the_given_one_and_the_next_the_step_s_own_error(self):
        images, logits, kl = sample()
        objective = built(sigma_mode="optimal", sigma=0.7)
        first = objective.of(batch_of(images), logits, latent_of(kl), 0.0)
        assert first.parts["sigma"].tolist() == pytest.approx([0.7] * 4)
        objective.finish_step()
        error = (torch.sigmoid(logits) - images).square().mean().item()
        second = objective.of(batch_of(images), logits, latent_of(kl), 0.0)
        assert second.parts["sigma"].tolist() == pytest.approx([math.sqrt(error)] * 4)

    def test_the_optimal_one_has_the_gradient_of_the_logarithm_of_the_error(self):
        """sigma-VAE: D / 2 ln(MSE of the batch) per image, for a batch that comes twice."""
        images, logits, kl = sample()
        objective = built(sigma_mode="optimal")
        objective.of(batch_of(images), logits, latent_of(kl), 0.0)
        objective.finish_step()
        ours, theirs = logits.clone().requires_grad_(), logits.clone().requires_grad_()
        objective.of(batch_of(images), ours, latent_of(kl), 0.0).reconstruction.sum().backward()
        (4 * 256 / 2 * (torch.sigmoid(theirs) - images).square().mean().log()).backward()
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-4, atol=1e-6)

    def test_val_objective_is_measured_with_the_sigma_of_the_time(self, dataset):
        trainer = Trainer(configured(**{"loss.sigma_mode": "learned", "loss.sigma": 0.2}), dataset)
        *_, last = [event for event in trainer.fit() if isinstance(event, Epoch)]
        sigma = trainer.learner.objective.scale()
        assert sigma != pytest.approx(0.2, rel=1e-3)
        mse, pixels = last.metrics["val/mse"], np.prod(dataset.sizes[dataset.splits["val"]], axis=1)
        measured = trainer.evaluator.evaluate(trainer.model, "val", 1.0, sigma=sigma).metrics["val/objective"]
        assert last.metrics["val/objective"] == pytest.approx(measured, rel=1e-9)
        about = pixels.mean() * (mse / (2 * sigma**2) + math.log(sigma) + 0.5 * math.log(2 * math.pi))
        assert measured - last.metrics["val/kl"] == pytest.approx(about, abs=0.15 * pixels.mean())


class TestLearnedWeights:
    def test_they_are_best_at_one_over_the_error_per_value(self):
        term, dims = torch.tensor([30.0, 50.0]), torch.tensor([100.0, 100.0])
        grid = torch.linspace(-5, 1, 6001)
        values = torch.stack([uncertain(term, dims, each).sum() for each in grid])
        assert math.exp(grid[values.argmin()]) == pytest.approx(0.4, rel=2e-3)

    def test_they_start_from_the_config_and_are_moved_and_logged(self, dataset):
        trainer = Trainer(configured(**VARIANTS["learned weights"]), dataset)
        images, logits, kl = sample()
        parts = trainer.learner.objective.of(batch_of(images), logits, latent_of(kl), 0.0).parts
        assert parts["weight_ssim"].tolist() == pytest.approx([0.1] * 4)
        epochs = [event.metrics for event in trainer.fit() if isinstance(event, Epoch)]
        assert epochs[-1]["train/weight_ssim"] != pytest.approx(0.1, rel=1e-2)
        assert epochs[-1]["train/term_ssim"] > 0

    def test_what_the_objective_learns_is_not_decayed(self):
        moved, spared = (torch.nn.Parameter(torch.ones(1)) for _ in range(2))
        optimisation = Optimisation(
            [moved],
            configured(**{"optim.algorithm": "adamw", "optim.weight_decay": 10.0}).optim,
            epochs=1,
            higher_is_better=True,
            scaler=torch.amp.GradScaler("cpu", enabled=False),
            undecayed=[spared],
        )
        moved.grad, spared.grad = torch.zeros(1), torch.zeros(1)
        optimisation.step(0.0, 1.0)
        assert moved.item() == pytest.approx(0.9)
        assert spared.item() == 1.0

    def test_gradients_of_weights_are_clipped_with_the_model_s(self, dataset):
        changes = {"optim.algorithm": "sgd", "optim.momentum": 0.0, "optim.lr": 1.0, "optim.clip_norm": 0.5}
        trainer = Trainer(configured(**VARIANTS["learned weights"], **changes), dataset)
        moved = [*trainer.model.parameters(), *trainer.learner.objective.parameters()]
        before = [weight.detach().clone() for weight in moved]
        next(trainer.fit())
        square = sum(float((old - new.detach()).square().sum()) for old, new in zip(before, moved, strict=True))
        assert math.sqrt(square) == pytest.approx(0.5, rel=1e-4)


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        (
            {"sigma_mode": "learned", "reconstruction": "bernoulli"},
            "sigma_mode: learned needs a likelihood with a sigma",
        ),
        ({"phases": [{"epochs": 2, "beta": 1}], "beta_schedule": "linear"}, "phases set beta; leave beta_schedule at"),
        ({"phases": [{"epochs": 2, "terms": {"ssim": 1}}], "term_weights": "learned"}, "leave term_weights at fixed"),
        ({"phases": [{"epochs": 2, "terms": {"sim": 1}}]}, "no such term 'sim'; did you mean ssim"),
        ({"phases": [{"epochs": 2, "betta": 1}]}, r"loss\.phases\.0\.betta: no such field; did you mean beta"),
        ({"terms": {"sim": 1}}, r"loss\.terms\.sim: no such field; did you mean ssim"),
        ({"terms": {"ssim": -1.0}}, r"loss\.terms\.ssim: should be greater than or equal to 0; got -1"),
        ({"perceptual": {"network": "checkpoint"}}, "path and network: checkpoint need one another"),
        ({"perceptual": {"path": "a.pth"}}, "path and network: checkpoint need one another"),
        (
            {"perceptual": {"path": "a.pth", "network": "checkpoint", "weights": "random"}},
            "weights: random needs network: squeezenet, vgg16 or resnet18",
        ),
    ],
)
def test_contradictions_are_refused(tree, message):
    with pytest.raises(UserError, match=message):
        parse_config({"loss": tree}, "f")


def test_terms_that_cannot_work_are_all_named_before_anything_is_built(dataset, monkeypatch, tmp_path):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    loss = configured(**{"loss.terms.ms_ssim": 1.0, "loss.terms.perceptual": 1.0, "loss.terms.lpips": 1.0}).loss
    mistakes = loss_mistakes(loss, 13)
    assert [mistake.partition(":")[0] for mistake in mistakes] == [
        "loss.terms.ms_ssim",
        "loss.terms.perceptual",
        "loss.terms.lpips",
    ]
    with pytest.raises(UserError, match=r"smallest side of the data is 13 px"):
        Trainer(parse_config(override(SMALL, {"loss.terms.ms_ssim": 1.0}), "t"), dataset)
