import pytest
import torch
from torch.nn.functional import adaptive_avg_pool2d, conv2d

from vae_core.models.blocks import BLOCKS, register_block
from vae_core.models.initialise import initialise
from vae_core.models.parts import CBAM, SpatialPyramid, group_norm


@pytest.fixture(params=sorted(BLOCKS))
def block_class(request):
    return BLOCKS[request.param]


def build(block_class, in_channels=6, out_channels=8, stride=1, cbam=True):
    options = {"cbam_reduction": 4, "norm_groups": 4, "growth_rate": 6, "dense_layers": 2}
    block = block_class(in_channels, out_channels, stride=stride, cbam=cbam, **options)
    initialise(block, seed=0)
    return block


class TestEveryBlock:
    @pytest.mark.parametrize("size", [(8, 8), (2, 2), (2, 32), (64, 4)])
    @pytest.mark.parametrize("stride", [1, 2])
    def test_maps_channels_and_divides_the_size_by_its_stride(self, block_class, size, stride):
        features = torch.randn(3, 6, *size, generator=torch.Generator().manual_seed(0))
        found = build(block_class, stride=stride)(features)
        assert found.shape == (3, 8, size[0] // stride, size[1] // stride)
        assert torch.isfinite(found).all()

    @pytest.mark.parametrize("cbam", [True, False])
    def test_gives_every_parameter_a_gradient(self, block_class, cbam):
        block = build(block_class, stride=2, cbam=cbam)
        features = torch.randn(4, 6, 16, 16, generator=torch.Generator().manual_seed(0))
        block(features).square().sum().backward()
        for name, parameter in block.named_parameters():
            assert torch.isfinite(parameter.grad).all(), name
            assert parameter.grad.abs().max() > 0, name

    def test_uses_attention_only_where_it_is_asked_for(self, block_class):
        with_attention = {type(module) for module in build(block_class, cbam=True).modules()}
        without = {type(module) for module in build(block_class, cbam=False).modules()}
        assert CBAM in with_attention
        assert CBAM not in without

    def test_treats_an_image_alone_as_in_a_batch(self, block_class):
        block = build(block_class, stride=2)
        features = torch.randn(5, 6, 8, 12, generator=torch.Generator().manual_seed(0))
        alone = torch.cat([block(image[None]) for image in features])
        assert torch.allclose(block(features), alone, atol=1e-5)


def test_a_registered_block_can_be_selected_by_name():
    try:
        decorated = register_block("for-this-test")(torch.nn.Identity)
        assert BLOCKS["for-this-test"] is torch.nn.Identity
        assert decorated is torch.nn.Identity
    finally:
        BLOCKS.pop("for-this-test", None)


def test_the_residual_block_adds_its_input_before_the_last_relu():
    block = build(BLOCKS["resnet"], in_channels=8, cbam=False)
    for norm in (block.body[1], block.body[4]):
        torch.nn.init.zeros_(norm.weight)
    features = torch.randn(2, 8, 4, 4, generator=torch.Generator().manual_seed(0))
    assert torch.equal(block(features), torch.relu(features))


def test_the_dense_block_shows_every_layer_all_that_came_before():
    block = build(BLOCKS["densenet"], stride=2, cbam=False)
    features = torch.randn(2, 6, 8, 4, generator=torch.Generator().manual_seed(0))
    assert [layer[2].weight.shape[:2] for layer in block.layers] == [(6, 6), (6, 12)]
    seen = [features]
    for layer in block.layers:
        norm, _, convolution = layer
        together = torch.cat(seen, dim=1)
        normalised = torch.nn.functional.group_norm(together, norm.num_groups, norm.weight, norm.bias)
        seen.append(conv2d(torch.relu(normalised), convolution.weight, padding=1))
    everything = torch.cat(seen, dim=1)  # 6 + 2 * 6 channels
    norm = block.activation[0]
    normalised = torch.nn.functional.group_norm(everything, norm.num_groups, norm.weight, norm.bias)
    narrowed = torch.einsum("bchw,oc->bohw", torch.relu(normalised), block.transition.weight[:, :, 0, 0])
    expected = narrowed.unflatten(2, (4, 2)).unflatten(4, (2, 2)).mean((3, 5))
    assert torch.allclose(block(features), expected, atol=1e-5)


@pytest.mark.parametrize(
    ("groups", "channels", "expected"),
    [(32, 64, 32), (32, 48, 24), (8, 12, 6), (8, 7, 7), (5, 7, 1), (4, 1, 1)],
)
def test_group_norm_takes_the_largest_divisor_up_to_the_wanted_groups(groups, channels, expected):
    assert group_norm(groups, channels).num_groups == expected


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (3, 2), (4, 4), (5, 9), (16, 1), (13, 31), (64, 32)])
def test_the_pyramid_equals_adaptive_average_pooling(size):
    features = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(0))
    levels = (1, 2, 4)
    expected = torch.cat([adaptive_avg_pool2d(features, level).flatten(1) for level in levels], dim=1)
    pyramid = SpatialPyramid(levels)
    assert pyramid.bins == 21
    assert torch.allclose(pyramid(features), expected, atol=1e-6)


def test_attention_weighs_channels_and_places_as_the_paper_writes_it():
    attention = CBAM(6, reduction=3)
    initialise(attention, seed=1)
    features = torch.randn(2, 6, 5, 4, generator=torch.Generator().manual_seed(0))

    def mlp(pooled):
        return torch.relu(pooled @ attention.squeeze.weight.T) @ attention.excite.weight.T

    logits = mlp(features.flatten(2).mean(2)) + mlp(features.flatten(2).max(2).values)
    weighted = features * torch.sigmoid(logits)[..., None, None]
    places = torch.stack([weighted.mean(1), weighted.max(1).values], dim=1)
    expected = weighted * torch.sigmoid(conv2d(places, attention.place.weight, padding=3))
    assert torch.allclose(attention(features), expected, atol=1e-6)
