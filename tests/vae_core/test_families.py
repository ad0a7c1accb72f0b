"""Contracts that every family of models keeps with every network, block and bottleneck it can be built with."""

import io
import math

import pytest
import torch
from support.training import epochs_of, through_disk

from vae_core.config import override, parse_config
from vae_core.errors import UserError
from vae_core.evaluation import Evaluator
from vae_core.events import Step
from vae_core.figures import write_figures
from vae_core.losses import negative_log_likelihood
from vae_core.models.blocks import BLOCKS
from vae_core.models.families import FAMILIES, register_family
from vae_core.models.networks import NETWORKS, register_network
from vae_core.models.summary import summary
from vae_core.models.vae import build_model, check_on_meta
from vae_core.trainer import Trainer

TREE = {
    "data": {"pad_multiple": 8, "width": 16},
    "model": {
        "latent_dim": 5,
        "encoder_widths": [4, 8],
        "decoder_widths": [8, 4],
        "decoder_grid": [4, 3],
        "norm_groups": 2,
        "stem_kernel": 3,
        "cbam_reduction": 2,
        "growth_rate": 4,
        "dense_layers": 2,
        "codes": 12,
        "code_decay": 0.9,
        "image_size": [24, 16],
    },
    "optim": {"lr": 1e-2},
    "train": {"epochs": 2, "effective_batch": 7, "device": "cpu"},
    "evaluate": {"lpips": "off"},
}
IMPOSSIBLE = {("*", "mlp", "spatial"), ("vq", "*", "vector")}
SIZE = (24, 16)
CLASSES = 3  # of no concern but to conditional models


def config(**changes):
    if changes.get("model.family") == "cvae":
        changes = {"data.labelled_fraction": 0.5} | changes  # so that training has images of both kinds
    return parse_config(override(TREE, changes), "test")


def possible(family, network, bottleneck):
    return not {("*", network, bottleneck), (family, "*", bottleneck)} & IMPOSSIBLE


CELLS = [
    {"model.family": family, "model.network": network, "model.block": block, "model.bottleneck": bottleneck}
    for family in sorted(FAMILIES)
    for network in sorted(NETWORKS)
    for block in (sorted(BLOCKS) if network == "residual" else ["resnet"])
    for bottleneck in ("vector", "spatial")
    if possible(family, network, bottleneck)
]
# The blocks are tried with every family above; what follows takes a second each and needs one block.
TRAINED = [cell for cell in CELLS if cell["model.block"] == "resnet"]


def name_of(cell):
    return "-".join(cell.values())


def numbers(*shape, seed=0):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def normal(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def build(cell, seed=0, channels=1):
    return build_model(config(**cell).model, channels, seed, "cpu", CLASSES)


def infer(model, images, noise, labels=None):
    return model.infer(images, noise, torch.arange(len(images)) % CLASSES if labels is None else labels)


def loss_of(model, images, noise, labels=None):
    size = tuple(images.shape[-2:])
    latent = infer(model, images, noise, labels)
    logits = model.decode(latent.z, size, latent.labels, latent.skips)
    reconstruction = negative_log_likelihood("gaussian", logits, images, torch.ones_like(images[:, :1]), 1.0)
    return reconstruction + latent.kl.sum(1) + sum(latent.losses.values())


def sizes_of(cell):
    return [SIZE] if cell["model.network"] == "mlp" else [(8, 8), (8, 40), (56, 16), SIZE]


@pytest.fixture(params=CELLS, ids=name_of)
def cell(request):
    return request.param


class TestEveryModel:
    def test_latents_and_images_have_the_promised_shapes_at_any_size(self, cell):
        model = build(cell, channels=3).eval()
        for size in sizes_of(cell):
            latent = infer(model, numbers(2, 3, *size), normal(2, model.noise_size(size)))
            grid = (size[0] // 4, size[1] // 4) if cell["model.bottleneck"] == "spatial" else ()
            assert latent.mu.shape == latent.z.shape == (2, 5, *grid)
            assert latent.logvar is None or latent.logvar.shape == latent.mu.shape
            assert latent.kl.shape == (2, 5)
            assert all(loss.shape == (2,) for loss in latent.losses.values())
            logits = model.decode(latent.z, size, latent.labels)
            assert logits.shape == (2, 3, *size)
            for values in (*vars(latent).values(), logits):
                assert not isinstance(values, torch.Tensor) or torch.isfinite(values).all()
            assert (latent.kl >= 0).all()

    def test_every_parameter_gets_a_finite_gradient_that_is_not_zero(self, cell):
        model = build(cell, seed=2)
        loss_of(model, numbers(6, 1, *SIZE), normal(6, model.noise_size(SIZE))).sum().backward()
        for name, parameter in model.named_parameters():
            assert torch.isfinite(parameter.grad).all(), name
            assert parameter.grad.abs().max() > 0, name

    def test_blank_images_give_finite_gradients(self, cell):
        model = build(cell)
        loss_of(model, torch.ones(2, 1, *SIZE), normal(2, model.noise_size(SIZE))).sum().backward()
        assert all(torch.isfinite(parameter.grad).all() for parameter in model.parameters())

    def test_an_image_alone_and_in_a_batch_agree(self, cell):
        model = build(cell).eval()
        images, noise = numbers(4, 1, *SIZE), normal(4, model.noise_size(SIZE))
        labels = torch.tensor([2, 0, 1, 2])
        alone = torch.cat([loss_of(model, images[[row]], noise[[row]], labels[[row]]) for row in range(4)])
        assert torch.allclose(loss_of(model, images, noise, labels), alone, rtol=1e-5)

    def test_weights_and_buffers_depend_on_the_seed_alone(self, cell):
        before = torch.get_rng_state()
        first, second, other = (build(cell, seed=seed).state_dict() for seed in (3, 3, 4))
        assert torch.equal(before, torch.get_rng_state())
        assert all(torch.equal(first[name], second[name]) for name in first)
        changed = [name for name in first if not torch.equal(first[name], other[name])]
        assert {name for name in first if name.endswith("weight") and first[name].dim() > 1} <= set(changed)

    def test_it_survives_saving_and_loading(self, cell):
        model, other = build(cell, seed=0).eval(), build(cell, seed=1).eval()
        buffer = io.BytesIO()
        torch.save(model.state_dict(), buffer)
        buffer.seek(0)
        other.load_state_dict(torch.load(buffer, weights_only=True))
        images, noise = numbers(2, 1, *SIZE), normal(2, model.noise_size(SIZE))
        assert torch.equal(loss_of(model, images, noise), loss_of(other, images, noise))

    def test_it_builds_and_runs_without_memory(self, cell):
        parameters = sum(parameter.numel() for parameter in build(cell).parameters())
        assert check_on_meta(config(**cell), [SIZE], CLASSES) == parameters
        assert f"{parameters:,}" in summary(config(**cell).model, 1, CLASSES, SIZE).splitlines()[-1]

    def test_a_few_steps_lower_the_loss(self, cell):
        model = build(cell)
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
        images = torch.full((6, 1, *SIZE), 0.9)
        images[:3, :, 4:16] = 0.2
        noise, labels = normal(6, model.noise_size(SIZE)), torch.tensor([0, 0, 0, 1, 1, 1])
        constant = images[0].numel() * 0.5 * math.log(2 * math.pi)
        losses = []
        for _ in range(25):
            loss = loss_of(model, images, noise, labels).mean() - constant
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            model.finish_step()
            losses.append(float(loss.detach()))
        rate = float(infer(model, images, noise).kl.sum(1).mean()) if cell["model.family"] == "vq" else 0.0
        assert losses[-1] - rate < 0.8 * (losses[0] - rate)

    def test_the_latent_is_float32_under_autocast(self, cell):
        model = build(cell).eval()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            latent = infer(model, numbers(2, 1, *SIZE), normal(2, model.noise_size(SIZE)))
            assert model.decode(latent.z, SIZE, latent.labels).dtype == torch.bfloat16
        for value in (latent.z, latent.mu, latent.kl, *latent.losses.values()):
            assert value.dtype == torch.float32

    def test_draws_from_the_prior_can_be_decoded_where_there_is_one(self, cell):
        model = build(cell).eval()
        noise = normal(3, model.noise_size(SIZE))
        if not model.has_prior:
            with pytest.raises(UserError, match=r"model\.family: ae has no prior"):
                model.prior(noise, SIZE)
            return
        z, latent = model.prior(noise, SIZE), infer(model, numbers(3, 1, *SIZE), noise)
        assert z.shape == latent.z.shape
        assert torch.isfinite(model.decode(z, SIZE, latent.labels)).all()


@pytest.fixture
def dataset(make_dataset, trained):
    sizes = ((24, 16),) if trained["model.network"] == "mlp" else ((24, 16), (16, 16), (13, 15))
    return make_dataset(30, sizes=sizes, classes=CLASSES)


@pytest.mark.parametrize("trained", TRAINED, ids=name_of)
class TestEveryModelInTraining:
    def test_a_run_resumed_mid_epoch_ends_bit_equal(self, dataset, trained):
        whole = Trainer(config(**trained), dataset)
        events, states = [], []
        for event in whole.fit():
            events.append(event)
            states.append(through_disk(whole.state_dict()))
        resumed = Trainer(config(**trained), dataset)
        resumed.load_state_dict(states[1])
        assert epochs_of(resumed.fit()) == epochs_of(events)
        for name, tensor in whole.model.state_dict().items():
            assert torch.equal(tensor, resumed.model.state_dict()[name]), name
        assert resumed.test().metrics == whole.test().metrics
        assert whole.test().verdict.because

    def test_how_a_step_is_split_changes_rounding_alone(self, dataset, trained):
        results = []
        for budget in (1, 10**9):
            changes = trained | {"optim.algorithm": "sgd", "optim.momentum": 0.0, "optim.lr": 1e-3}
            trainer = Trainer(config(**changes), dataset, pixel_budget=budget)
            next(trainer.fit())
            results.append(trainer.model.state_dict())
        for name, tensor in results[0].items():
            torch.testing.assert_close(tensor, results[1][name], rtol=1e-4, atol=1e-5, msg=name)

    def test_it_is_measured_and_drawn(self, dataset, trained, tmp_path):
        chosen = config(**trained)
        model, evaluator = build(trained), Evaluator(chosen, dataset, "cpu")
        result = evaluator.evaluate(model, "test", 1.0)
        assert all(torch.isfinite(torch.tensor(value)) for value in result.metrics.values())
        assert {len(vector) for vector in result.vectors.values()} == {5}
        again = Evaluator(chosen, dataset, "cpu", pixel_budget=1).evaluate(model, "test", 1.0)
        assert again.metrics == pytest.approx(result.metrics, rel=1e-4, abs=1e-6)
        if trained["model.network"] != "residual":  # drawing takes a second
            return
        pages = [path.name for path in write_figures(model, evaluator, tmp_path, 1, result.vectors)]
        drawn = ["reconstructions_0001.png", "prior_samples_0001.png", "kl_spectrum_0001.png"]
        assert pages == [page for page in drawn if model.has_prior or "prior" not in page]


@pytest.mark.parametrize("family", sorted(FAMILIES))
class TestSkips:
    @pytest.fixture
    def changes(self, family):
        return {
            "model.family": family,
            "model.bottleneck": "spatial" if family == "vq" else "vector",
            "model.encoder_widths": [4, 6, 8],
            "model.decoder_widths": [8, 6, 4],
            "model.skips": True,
        }

    @pytest.mark.parametrize("size", [(8, 8), (8, 40), (24, 16)])
    def test_the_decoder_gets_maps_of_its_own_scales(self, changes, size):
        model = build(changes).eval()
        latent = infer(model, numbers(2, 1, *size), normal(2, model.noise_size(size)))
        assert [tuple(part.shape[1:]) for part in latent.skips] == [
            (4, size[0] // 2, size[1] // 2),
            (6, size[0] // 4, size[1] // 4),
        ]
        with_maps, without = (
            model.decode(latent.z, size, latent.labels, latent.skips),
            model.decode(latent.z, size, latent.labels),
        )
        assert with_maps.shape == without.shape == (2, 1, *size)
        for level in range(2):
            blank = [part if place == level else torch.zeros_like(part) for place, part in enumerate(latent.skips)]
            assert not torch.allclose(model.decode(latent.z, size, latent.labels, tuple(blank)), with_maps, atol=1e-4)

    def test_open_skips_get_a_gradient_and_shut_ones_none(self, changes):
        for warmup, position in ((0.0, 0.0), (2.0, 1.9), (2.0, 2.0)):
            model = build(changes | {"model.skip_warmup_epochs": warmup, "train.epochs": 9}, seed=2)
            model.start_step(position)
            loss_of(model, numbers(6, 1, *SIZE), normal(6, model.noise_size(SIZE))).sum().backward()
            for name, parameter in model.named_parameters():
                is_shut = "skips" in name and position < warmup
                assert torch.isfinite(parameter.grad).all(), name
                assert (parameter.grad.abs().max() == 0) == is_shut, name

    def test_skips_that_join_nothing_or_never_open_are_refused(self, changes):
        chosen = config(**changes | {"model.encoder_widths": [8], "model.decoder_widths": [8]})
        with pytest.raises(UserError, match="skips: true joins no scale of encoder_widths"):
            check_on_meta(chosen, [(16, 16)], CLASSES)
        with pytest.raises(UserError, match=r"skip_warmup_epochs: 9 must be less than train\.epochs"):
            config(**changes | {"model.skip_warmup_epochs": 9.0})

    def test_their_elbo_is_called_no_bound(self, changes, make_dataset):
        trainer = Trainer(config(**changes), make_dataset(30, classes=CLASSES))
        assert "no bound: what skips carry past the latent is not in the KL" in trainer.tags["elbo"]

    def test_the_warm_up_ends_on_time_and_survives_a_resume(self, changes, make_dataset):
        chosen, dataset = config(**changes | {"model.skip_warmup_epochs": 0.5}), make_dataset(30, classes=CLASSES)
        whole = Trainer(chosen, dataset)
        gates, states = [], []
        for event in whole.fit():
            if isinstance(event, Step):
                gates.append(float(whole.model.decoder.skips.gate))
                states.append(through_disk(whole.state_dict()))
        steps = len(gates) // 2
        assert gates == [float(step / steps >= 0.5) for step in range(2 * steps)]
        assert 0.0 in gates
        resumed = Trainer(chosen, dataset)
        resumed.load_state_dict(states[0])
        list(resumed.fit())
        assert resumed.test().metrics == whole.test().metrics

    def test_the_exchange_leaves_each_image_its_own_maps(self, changes, make_dataset):
        model = build(changes)
        torch.nn.init.zeros_(model.decoder.project.weight)  # z says nothing
        metrics = (
            Evaluator(config(**changes), make_dataset(30, classes=CLASSES), "cpu").evaluate(model, "test", 1.0).metrics
        )
        assert abs(metrics["test/exchange_cost"]) < 1e-9


def test_without_skips_there_are_no_maps():
    model = build({"model.family": "vae"})
    assert infer(model, numbers(2, 1, *SIZE), normal(2, 5)).skips == ()


@pytest.mark.parametrize(("register", "registry"), [(register_family, FAMILIES), (register_network, NETWORKS)])
def test_what_is_registered_can_be_selected_by_name(register, registry):
    try:
        register("for-this-test")(print)
        assert registry["for-this-test"] is print
    finally:
        registry.pop("for-this-test", None)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model.family": "vea"}, r"model\.family: no such family; did you mean vae"),
        ({"model.network": "cnov"}, r"model\.network: no such network; did you mean conv"),
        ({"model.network": "mlp", "model.image_size": None}, r"set image_size: \[height, width\]"),
        ({"model.network": "mlp", "model.bottleneck": "spatial"}, "network: mlp has none of; take vector"),
        ({"model.network": "conv", "model.skips": True}, "skips: true needs network: residual, not conv"),
        ({"model.family": "vq"}, "vq gives every position a code and needs bottleneck: spatial"),
        ({"model.family": "hierarchical", "model.groups": 6}, "groups must not exceed latent_dim, not 6 and 5"),
        (
            {"model.bottleneck": "spatial", "model.decoder_size": "fixed"},
            "grid that follows the image; it needs decoder_size: input",
        ),
    ],
)
def test_impossible_combinations_are_refused(changes, message):
    with pytest.raises(UserError, match=message):
        config(**changes)
