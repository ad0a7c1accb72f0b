import math

import numpy as np
import pytest
import scipy.stats
import torch

from vae_core.config import parse_config
from vae_core.diagnostics import dead_codes, perplexity
from vae_core.evaluation import Evaluator
from vae_core.models.vae import build_model
from vae_core.models.vector_quantised import Codebook
from vae_core.trainer import Trainer

TREE = {
    "data": {"pad_multiple": 8},
    "model": {
        "family": "vq",
        "network": "conv",
        "bottleneck": "spatial",
        "latent_dim": 3,
        "encoder_widths": [4, 8],
        "decoder_widths": [8, 4],
        "codes": 7,
        "commitment": 0.5,
        "code_restart": 0.0,
    },
    "evaluate": {"lpips": "off"},
}
SIZE = (16, 8)


def model():
    return build_model(parse_config(TREE, "test").model, 1, 0, "cpu")


def normal(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def codebook(count=7, channels=3, decay=0.9, restart=0.0):
    made = Codebook(count, channels, decay=decay, restart=restart)
    made.fill_buffers(torch.Generator().manual_seed(0))
    return made


class TestTheModel:
    @pytest.fixture
    def encoded(self):
        built = model().eval()
        images = torch.rand(2, 1, *SIZE, generator=torch.Generator().manual_seed(0))
        encodings = built.to_code(built.encoder(images))
        near = encodings.detach().permute(0, 2, 3, 1).reshape(-1, 3)[3:10]  # codes where the encodings are
        built.codebook.codes.copy_(near + 0.01 * normal(7, 3, seed=5))
        return built, images, encodings

    def test_every_position_takes_the_nearest_code(self, encoded):
        built, images, encodings = encoded
        latent = built.infer(images, normal(2, 8))
        flat = encodings.permute(0, 2, 3, 1).reshape(-1, 3)
        nearest = torch.cdist(flat, built.codebook.codes).argmin(1)
        assert len(set(nearest.tolist())) > 1
        expected = built.codebook.codes[nearest].view(2, 4, 2, 3).permute(0, 3, 1, 2)
        assert torch.equal(latent.mu, expected)
        assert torch.allclose(latent.z, expected, atol=1e-6)
        assert torch.equal(latent.code_counts.sum(0).long(), torch.bincount(nearest, minlength=7))

    def test_the_rate_is_that_of_a_uniform_code_at_every_position(self, encoded):
        built, images, _ = encoded
        point, uniform = torch.zeros(7), torch.full((7,), 1 / 7)
        point[3] = 1
        one = torch.distributions.kl_divergence(
            torch.distributions.Categorical(point), torch.distributions.Categorical(uniform)
        )
        assert float(built.infer(images, normal(2, 8)).kl.sum(1)[0]) == pytest.approx(8 * float(one), rel=1e-5)

    def test_the_commitment_is_what_a_gaussian_around_the_code_costs(self, encoded):
        built, images, encodings = encoded
        latent = built.infer(images, normal(2, 8))
        around = torch.distributions.Normal(latent.mu.double(), (1 / 0.5) ** 0.5)
        expected = (around.log_prob(latent.mu.double()) - around.log_prob(encodings)).sum((1, 2, 3))
        assert latent.losses["commitment"].detach().tolist() == pytest.approx(expected.detach().tolist(), rel=1e-4)

    def test_the_gradient_goes_straight_through_to_the_encoder(self, encoded):
        built, images, encodings = encoded
        weights = normal(2, 3, 4, 2)
        (built.infer(images, normal(2, 8)).z * weights).sum().backward()
        straight = built.to_code.weight.grad.clone()
        built.zero_grad()
        (encodings * weights).sum().backward()
        assert torch.allclose(straight, built.to_code.weight.grad)
        assert straight.abs().max() > 0

    def test_every_code_is_as_likely_under_the_prior(self):
        built = model()
        drawn = built.prior(normal(2000, 8), SIZE)
        assert drawn.shape == (2000, 3, 4, 2)
        found = torch.cdist(drawn.permute(0, 2, 3, 1).reshape(-1, 3), built.codebook.codes).argmin(1)
        assert scipy.stats.chisquare(np.bincount(found, minlength=7)).pvalue > 1e-3

    def test_only_training_moves_the_codebook(self, encoded):
        built, images, _ = encoded
        before = {name: value.clone() for name, value in built.codebook.state_dict().items()}
        built.infer(images, normal(2, 8))
        assert all(torch.equal(value, before[name]) for name, value in built.codebook.state_dict().items())
        built.train()
        built.infer(images, normal(2, 8))
        assert torch.equal(built.codebook.codes, before["codes"])
        built.finish_step()
        assert not torch.equal(built.codebook.codes, before["codes"])


class TestTheCodebook:
    def test_codes_are_exponential_averages_of_their_encodings(self):
        book = codebook(decay=0.8)
        use, sums = np.zeros(7), np.zeros((7, 3))
        for step in range(4):
            encodings = normal(40, 3, seed=step)
            chosen = book.nearest(encodings)
            book.observe(encodings, chosen, normal(40, seed=100 + step))
            book.commit()
            for code in range(7):
                mine = encodings[chosen == code].numpy()
                use[code] = 0.8 * use[code] + 0.2 * len(mine)
                sums[code] = 0.8 * sums[code] + 0.2 * mine.sum(0)
        assert (use > 0).all()
        assert np.allclose(book.use, use, atol=1e-5)
        assert np.allclose(book.codes, sums / use[:, None], atol=1e-5)

    def test_the_split_of_a_step_makes_no_difference(self):
        whole, split = codebook(restart=0.5), codebook(restart=0.5)
        encodings, rank = normal(40, 3), normal(40, seed=1)
        chosen = whole.nearest(encodings)
        whole.observe(encodings, chosen, rank)
        for part in (slice(30, 40), slice(0, 3), slice(3, 30)):
            split.observe(encodings[part], chosen[part], rank[part])
        for book in (whole, split):
            book.commit()
        for name, value in whole.state_dict().items():
            assert torch.allclose(value, split.state_dict()[name], atol=1e-6), name

    def test_unused_codes_move_to_different_encodings_of_the_step_drawn_by_the_random_numbers(self):
        book = codebook(restart=0.5)
        encodings, rank = normal(40, 3) + 5, normal(40, seed=1)
        book.observe(encodings, torch.tensor([2, 4]).repeat(20), rank)
        book.commit()
        moved = [0, 1, 3, 5, 6]
        assert torch.equal(book.codes[moved], encodings[rank.argsort(descending=True)[:5]])
        assert torch.allclose(book.codes[2], encodings[::2].mean(0), atol=1e-5)
        assert (book.use > 0).all()

    def test_without_restarts_an_unused_code_stays(self):
        book = codebook(restart=0.0)
        before = book.codes.clone()
        book.observe(normal(40, 3), torch.tensor([2, 4]).repeat(20), normal(40, seed=1))
        book.commit()
        unused = [0, 1, 3, 5, 6]
        assert torch.equal(book.codes[unused], before[unused])

    def test_fewer_encodings_than_unused_codes_move_only_as_many(self):
        book = codebook(restart=0.5)
        before = book.codes.clone()
        book.observe(normal(2, 3) + 5, torch.tensor([2, 2]), normal(2, seed=1))
        book.commit()
        assert torch.equal(book.codes[3:], before[3:])
        assert (book.codes[:3] > 1).all()
        assert torch.isfinite(book.codes).all()

    def test_averages_that_fade_away_never_make_a_code_infinite(self):
        book = codebook(decay=0.1)
        book.observe(normal(40, 3), torch.arange(40) % 7, normal(40))
        for _ in range(60):
            book.commit()
        assert torch.isfinite(book.codes).all()


def test_a_step_with_an_infinite_encoding_leaves_the_codebook_as_it_was():
    book = Codebook(8, 3, decay=0.9, restart=0.1)
    book.fill_buffers(torch.Generator().manual_seed(0))
    draws = torch.Generator().manual_seed(1)
    for poisoned in (False, True, False):
        encodings = torch.randn(20, 3, generator=draws)
        before = book.codes.clone()
        if poisoned:
            encodings[3, 1] = float("inf")
        book.observe(encodings, book.nearest(encodings), torch.rand(20, generator=draws))
        book.commit()
        assert torch.isfinite(book.codes).all()
        assert torch.equal(book.codes, before) == poisoned


def test_a_step_of_training_moves_the_codes_once_however_it_is_split(make_dataset):
    config, dataset = parse_config(TREE | {"train": {"effective_batch": 12, "device": "cpu"}}, "test"), make_dataset(20)
    for budget in (1, 10**9):
        trainer = Trainer(config, dataset, pixel_budget=budget)
        next(trainer.fit())
        heights = dataset.sizes[dataset.splits["train"]][:, 0]
        positions = sum(-(-int(height) // 8) * 8 // 4 * 4 for height in heights)  # 16 px wide, a code per 4 px
        assert float(trainer.model.codebook.use.sum()) == pytest.approx(0.01 * positions, rel=1e-4)
        assert float(trainer.model.codebook.step_use.sum()) == 0


def test_perplexity_and_dead_codes_are_of_the_whole_split(make_dataset):
    config, dataset = parse_config(TREE, "test"), make_dataset(40)
    built = build_model(config.model, 1, 0, "cpu").eval()
    with torch.no_grad():
        built.to_code.weight.mul_(20)
    built.codebook.codes.copy_(normal(7, 3))
    evaluator = Evaluator(config, dataset, "cpu", pixel_budget=1)
    metrics = evaluator.evaluate(built, "val", 1.0).metrics
    counts = np.zeros(7)
    for index in dataset.splits["val"]:
        image = torch.zeros(1, 1, *(-(-side // 8) * 8 for side in dataset.sizes[index]))
        height, width = dataset.sizes[index]
        image[0, :, :height, :width] = torch.tensor(dataset.image(int(index)).copy()) / 255
        encodings = built.to_code(built.encoder(image)).permute(0, 2, 3, 1).reshape(-1, 3)
        counts += np.bincount(torch.cdist(encodings, built.codebook.codes).argmin(1), minlength=7)
    assert (counts > 0).sum() > 1
    assert metrics["latent/perplexity"] == pytest.approx(math.exp(scipy.stats.entropy(counts)), rel=1e-6)
    assert metrics["latent/dead_codes"] == (counts == 0).sum()
    assert evaluator.evaluate(built, "test", 1.0).metrics["test/perplexity"] > 1


def test_perplexity_counts_codes_used_alike():
    counts = torch.tensor([[3.0, 0.0, 1.0, 0.0], [0.0, 0.0, 2.0, 3.0]])
    assert perplexity(counts) == pytest.approx(3.0)
    assert dead_codes(counts) == 1
