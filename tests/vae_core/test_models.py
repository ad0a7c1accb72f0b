import re

import pytest
import torch
from torch import nn

from vae_core.config import ModelConfig, RunConfig, load_base, override, parse_config
from vae_core.errors import UserError
from vae_core.losses import kl_per_dimension, negative_log_likelihood, objective, reparameterize
from vae_core.models.blocks import BLOCKS
from vae_core.models.initialise import initialise
from vae_core.models.parts import CBAM
from vae_core.models.summary import summary
from vae_core.models.vae import build_model, check_on_meta, on_meta

SMALL = {"encoder_widths": (4, 8, 8), "decoder_widths": (8, 8, 4), "norm_groups": 4, "latent_dim": 5}


def base(name, **changes):
    return parse_config(override(load_base(name, "test"), changes), "test")


def small_model(seed=0, channels=1, **changes):
    return build_model(ModelConfig(**(SMALL | changes)), channels, seed, "cpu")


def noise(*shape):
    return torch.rand(shape, generator=torch.Generator().manual_seed(0))


def loss_of(model, images):
    mu, logvar = model.encode(images)
    logits = model.decode(reparameterize(mu, logvar, torch.ones_like(mu)), tuple(images.shape[-2:]))
    mask = torch.ones_like(images[:, :1])
    reconstruction = negative_log_likelihood("gaussian", logits, images, mask, 1.0)
    return objective(reconstruction, kl_per_dimension(mu, logvar).sum(1), 1.0).total


@pytest.mark.parametrize("block", sorted(BLOCKS))
@pytest.mark.parametrize("decoder_size", ["input", "fixed"])
class TestEveryBlockInTheModel:
    @pytest.mark.parametrize("size", [(8, 8), (8, 128), (128, 8), (40, 24), (56, 16)])
    def test_any_multiple_of_the_stride_is_encoded_and_decoded(self, block, decoder_size, size):
        model = small_model(block=block, decoder_size=decoder_size, channels=3)
        assert model.stride == 8
        mu, logvar = model.encode(noise(2, 3, *size))
        assert mu.shape == logvar.shape == (2, 5)
        logits = model.decode(mu, size)
        assert logits.shape == (2, 3, *size)
        assert torch.isfinite(logits).all()

    def test_every_parameter_gets_a_finite_gradient(self, block, decoder_size):
        model = small_model(seed=1, block=block, decoder_size=decoder_size)
        loss_of(model, noise(6, 1, 24, 16)).sum().backward()
        for name, parameter in model.named_parameters():
            assert torch.isfinite(parameter.grad).all(), name
            assert parameter.grad.abs().max() > 0, name

    def test_an_image_alone_and_in_a_batch_agree(self, block, decoder_size):
        model = small_model(block=block, decoder_size=decoder_size)
        images = noise(5, 1, 24, 16)
        together = loss_of(model, images)
        alone = torch.cat([loss_of(model, image[None]) for image in images])
        assert torch.allclose(together, alone, rtol=1e-5)


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_blank_images_give_finite_gradients(value):
    model = small_model()
    loss_of(model, torch.full((2, 1, 16, 16), value)).sum().backward()
    assert all(torch.isfinite(parameter.grad).all() for parameter in model.parameters())


@pytest.mark.parametrize(("widths", "size"), [((8, 8), (24, 16)), ((8, 8, 8, 8, 4), (24, 16)), ((8,), (8, 8))])
def test_a_decoder_whose_doublings_do_not_match_the_stride_still_ends_at_the_size(widths, size):
    model = small_model(decoder_widths=widths)
    assert model.decode(torch.zeros(1, 5), size).shape == (1, 1, *size)


def test_a_decoder_that_follows_the_input_needs_no_final_stretch():
    model = small_model(decoder_grid=(3, 5))
    sizes = []
    model.decoder.head.register_forward_hook(lambda _, __, output: sizes.append(tuple(output.shape[-2:])))
    for size in [(8, 8), (40, 24), (8, 128)]:
        model.decode(torch.zeros(1, 5), size)
    assert sizes == [(8, 8), (40, 24), (8, 128)]


@pytest.mark.parametrize("kernel", [1, 3, 7])
@pytest.mark.parametrize(("pool", "divisor"), [(False, 2), (True, 4)])
def test_the_stem_divides_sizes_exactly(kernel, pool, divisor):
    model = small_model(stem_kernel=kernel, stem_pool=pool)
    assert model.stride == 4 * divisor
    for size in [(4, 4), (8, 24)]:
        found = model.encoder.stem(noise(1, 1, *size)).shape[-2:]
        assert tuple(found) == (size[0] // divisor, size[1] // divisor)


def test_the_log_variance_is_bounded_without_cutting_the_gradient_off():
    model = small_model(logvar_bound=4.0)
    nn.init.constant_(model.to_logvar.bias, 6.0)
    images = noise(2, 1, 16, 16)
    _, logvar = model.encode(images)
    assert (logvar.abs() < 4.0).all()
    assert (logvar > 3.0).all()
    logvar.sum().backward()
    assert model.to_logvar.bias.grad.abs().min() > 0
    raw = model.to_logvar(model.encoder(images))
    assert torch.allclose(logvar, 4 * torch.tanh(raw / 4))


def test_the_posterior_is_float32_under_autocast():
    model = small_model()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mu, logvar = model.encode(noise(2, 1, 16, 16))
        logits = model.decode(mu, (16, 16))
    assert mu.dtype == logvar.dtype == torch.float32
    assert logits.dtype == torch.bfloat16


class TestInitialWeights:
    def test_same_seed_is_bit_equal_and_leaves_the_global_generator_alone(self):
        before = torch.get_rng_state()
        first, second, other = (small_model(seed=seed) for seed in (3, 3, 4))
        assert torch.equal(before, torch.get_rng_state())
        for (name, one), two, three in zip(
            first.named_parameters(), second.parameters(), other.parameters(), strict=True
        ):
            assert torch.equal(one, two), name
            is_norm = bool((one == 1).all() or (one == 0).all())
            assert torch.equal(one, three) == is_norm, name

    def test_parameters_of_one_shape_differ(self):
        model = small_model()
        assert model.to_mu.weight.shape == model.to_logvar.weight.shape
        assert not torch.equal(model.to_mu.weight, model.to_logvar.weight)

    def test_they_do_not_depend_on_layers_elsewhere(self):
        one, two = small_model(), small_model(cbam=False, latent_dim=9)
        assert torch.equal(one.encoder.blocks[0].body[0].weight, two.encoder.blocks[0].body[0].weight)

    @pytest.mark.parametrize(
        "layer",
        [nn.Conv2d(12, 64, 3), nn.Linear(80, 100), nn.Conv2d(32, 64, 1, bias=False), nn.GroupNorm(4, 64)],
    )
    def test_they_have_pytorchs_default_distribution(self, layer):
        torch.manual_seed(0)
        layer.reset_parameters()
        expected = {name: value.detach().clone() for name, value in layer.named_parameters()}
        initialise(layer, seed=0)
        for name, value in layer.state_dict().items():
            bound = float(expected[name].abs().max())
            assert float(value.abs().max()) == pytest.approx(bound, rel=0.05)
            assert float(value.std()) == pytest.approx(float(expected[name].std()), rel=0.2)
            if value.dim() > 1:
                assert value.mean().abs() < 0.1 * bound

    def test_parameters_and_buffers_of_unknown_kinds_are_refused(self):
        with pytest.raises(TypeError, match="running_mean: buffers are not initialised"):
            initialise(nn.Sequential(nn.BatchNorm2d(3)), seed=0)
        with pytest.raises(TypeError, match="in_proj_weight: only parameters named weight and bias"):
            initialise(nn.Sequential(nn.MultiheadAttention(4, 2)), seed=0)


def test_weights_survive_saving_and_loading(tmp_path):
    model, other = small_model(seed=0), small_model(seed=1)
    torch.save(model.state_dict(), tmp_path / "model.pt")
    other.load_state_dict(torch.load(tmp_path / "model.pt", weights_only=True))
    images = noise(2, 1, 16, 16)
    assert torch.equal(loss_of(model, images), loss_of(other, images))


class TestBaseConfigs:
    def test_wireframes_is_the_full_model(self):
        model = on_meta(base("wireframes").model, channels=1)
        assert model.stride == 32
        assert model.latent_dim == 128
        assert [block.body[0].out_channels for block in model.encoder.blocks] == [128, 256, 512]
        assert [type(layer).__name__ for layer in model.encoder.stem] == [
            "Conv2d",
            "GroupNorm",
            "ReLU",
            "MaxPool2d",
        ]
        assert model.encoder.stem[0].weight.shape == (64, 1, 7, 7)
        assert model.encoder.stem[1].num_groups == 32
        assert model.to_mu.in_features == 512 * 21 == 10_752
        assert model.decoder.grid == (256, 64, 4)
        assert [block.body[0].out_channels for block in model.decoder.blocks] == [128, 64, 32]
        assert model.decoder.head.weight.shape == (1, 32, 3, 3)

    def test_wireframes_draws_at_its_own_size_and_stretches_the_result(self):
        model = on_meta(base("wireframes").model, channels=1)
        drawn = []
        model.decoder.head.register_forward_hook(lambda _, __, output: drawn.append(tuple(output.shape)))
        features = model.encoder.blocks(model.encoder.stem(torch.empty(1, 1, 2048, 1024, device="meta")))
        assert features.shape == (1, 512, 64, 32)
        logits = model.decode(torch.empty(1, 128, device="meta"), (2048, 1024))
        assert drawn == [(1, 1, 1024, 64)]
        assert logits.shape == (1, 1, 2048, 1024)

    def test_wireframes_tiny_stays_small(self):
        assert check_on_meta(base("wireframes-tiny"), [(64, 32), (16, 32)]) < 250_000


class TestCheckOnMeta:
    @pytest.mark.parametrize("name", ["wireframes-tiny", "fashion-mnist", "images"])
    def test_it_counts_the_parameters_of_the_real_model(self, name):
        config = base(name)
        model = build_model(config.model, config.data.channels, 0, "cpu")
        assert check_on_meta(config, [(28, 28)]) == sum(parameter.numel() for parameter in model.parameters())

    def test_it_pads_sizes_as_training_does_and_tries_each_once(self, monkeypatch):
        seen = []
        monkeypatch.setattr("vae_core.models.vae._try_size", lambda *arguments: seen.append(arguments[-1]))
        config = base("wireframes-tiny", **{"data.pad_multiple": 16})
        check_on_meta(config, [(17, 32), (30, 32), (32, 32), (33, 20)])
        assert seen == [(32, 32), (48, 32)]

    def test_a_stride_that_overflows_names_the_encoder(self):
        config = base("wireframes-tiny", **{"model.encoder_widths": [2] * 40})
        with pytest.raises(UserError, match=r"model\.encoder_widths: .*cannot process images padded to"):
            check_on_meta(config, [(32, 32)])

    def test_a_norm_that_would_erase_a_single_feature_pixel_is_refused(self):
        widths = {"model.encoder_widths": [16, 32, 64], "model.norm_groups": 64}
        config = base("wireframes-tiny", **widths, **{"data.pad_multiple": None})
        with pytest.raises(UserError, match=r"model\.encoder_widths: .*8 x 8 px.*more than 1 value per channel"):
            check_on_meta(config, [(8, 8)])

    def test_a_block_that_cannot_be_built_is_named(self, monkeypatch):
        monkeypatch.setitem(BLOCKS, "broken", nn.Identity)
        monkeypatch.setitem(BLOCKS, "demanding", _Demanding)
        with pytest.raises(UserError, match=r"model: cannot be built with block 'demanding': only even widths"):
            check_on_meta(base("wireframes-tiny", **{"model.block": "demanding"}), [(32, 32)])
        widths = {"model.encoder_widths": [64], "model.decoder_widths": [64, 32]}
        config = base("wireframes-tiny", **widths, **{"model.block": "broken"})
        with pytest.raises(UserError, match=r"model\.decoder_widths: .*cannot process"):
            check_on_meta(config, [(32, 32)])

    def test_it_touches_no_global_generator(self):
        before = torch.get_rng_state()
        check_on_meta(RunConfig(), [(32, 32)])
        assert torch.equal(before, torch.get_rng_state())


class _Demanding(nn.Module):
    def __init__(self, *_, **__):
        super().__init__()
        raise ValueError("only even widths")


def test_the_summary_names_layers_with_what_they_give_and_their_parameters():
    config = RunConfig.model_validate({"model": {"latent_dim": 5, "encoder_widths": [8], "decoder_widths": [8, 4]}})
    before = torch.get_rng_state()
    first, _, header, *rows = summary(config.model, 3, 0, (32, 64)).splitlines()
    assert torch.equal(before, torch.get_rng_state())
    total = sum(parameter.numel() for parameter in on_meta(config.model, 3).parameters())
    assert first == "input (1, 3, 32, 64), float32 in [0, 1]"
    assert header.split() == ["layer", "type", "output", "parameters"]
    assert rows[-1].split() == ["total", f"{total:,}"]
    assert sum(int(row.split()[-1].replace(",", "")) for row in rows[:-1]) == total
    assert re.search(r"^to_mu +Linear\(.*\(1, 5\) ", "\n".join(rows), re.MULTILINE)
    assert re.search(r"^decoder.head .*\(1, 3, 32, 64\) ", "\n".join(rows), re.MULTILINE)


def test_attention_is_part_of_the_default_model():
    assert sum(isinstance(module, CBAM) for module in small_model().modules()) == 4


def test_the_encoder_sees_how_bright_an_image_is():
    """Convolutions without biases before a GroupNorm would make an image and its dimmer copy the same."""
    config = parse_config({"model": {"encoder_widths": [8, 16], "decoder_widths": [16, 8], "norm_groups": 4}}, "test")
    model = build_model(config.model, 1, 0, "cpu")
    image = torch.rand(1, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    bright, _ = model.encode(image)
    dim, _ = model.encode(0.5 * image)
    assert (bright - dim).abs().max() > 0.02 * bright.abs().max()
