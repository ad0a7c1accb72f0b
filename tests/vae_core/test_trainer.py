"""The trainer: exact resume, keyed randomness, accumulation, selection, early stopping and honest failures."""

import copy
import random

import numpy as np
import pytest
import torch
from support.training import assert_bit_equal, epochs_of, through_disk

from vae_core.config import override, parse_config
from vae_core.errors import UserError
from vae_core.events import Epoch, Evaluation, Interrupted, Step
from vae_core.trainer import DeviceMissingError, Trainer, TrainingDivergedError, resolve_device

SMALL = {
    "model": {
        "latent_dim": 3,
        "encoder_widths": [4, 8],
        "decoder_widths": [8, 4],
        "norm_groups": 2,
        "stem_kernel": 3,
        "cbam_reduction": 2,
    },
    "optim": {"lr": 1e-2},
    "train": {"epochs": 3, "effective_batch": 7, "device": "cpu"},
    "evaluate": {"lpips": "off"},
    "data": {"pad_multiple": 8},
}

PLAIN_DESCENT = {"optim.algorithm": "sgd", "optim.momentum": 0.0, "optim.lr": 1.0}


def config(**changes):
    return parse_config(override(SMALL, changes), "test")


def weights(trainer):
    return {name: tensor.clone() for name, tensor in trainer.model.state_dict().items()}


@pytest.fixture
def dataset(make_dataset):
    return make_dataset(count=40)


@pytest.fixture
def undisturbed(dataset):
    trainer = Trainer(config(), dataset)
    events = list(trainer.fit())
    return trainer, events


def test_events_come_in_order_and_count_from_one(dataset, undisturbed):
    trainer, events = undisturbed
    steps_per_epoch = -(-len(dataset.splits["train"]) // 7)
    kinds = [type(event) for event in events]
    assert kinds == ([Step] * steps_per_epoch + [Evaluation, Epoch]) * 3
    assert [event.step for event in events if isinstance(event, Step)] == list(range(1, 3 * steps_per_epoch + 1))
    assert [event.epoch for event in events if isinstance(event, Epoch)] == [1, 2, 3]
    assert [event.is_last for event in events if isinstance(event, Epoch)] == [False, False, True]
    assert sum(event.images for event in events if isinstance(event, Step)) == 3 * len(dataset.splits["train"])
    assert trainer.finished


def test_training_lowers_the_objective(undisturbed):
    _, events = undisturbed
    first, *_, last = [event.metrics["train/objective"] for event in events if isinstance(event, Epoch)]
    assert last < first - 0.1


def test_a_run_resumed_after_any_event_ends_bit_equal_and_measures_the_same(dataset, undisturbed):
    whole, events = undisturbed
    reference = epochs_of(events)
    trainer = Trainer(config(), dataset)
    saved = [(type(event), through_disk(trainer.state_dict()), trainer.epoch) for event in trainer.fit()]
    for kind, state, done in saved[:: 2 if len(saved) > 20 else 1]:
        resumed = Trainer(config(), dataset)
        resumed.load_state_dict(state)
        metrics = epochs_of(resumed.fit())
        assert metrics == reference[done:], kind
        assert_bit_equal(weights(resumed), weights(whole))
        assert resumed.test().metrics == whole.test().metrics


@pytest.mark.parametrize(
    "changes",
    [
        {"optim.ema_decay": 0.9, "optim.lr_schedule": "cosine", "optim.restart_epochs": 1.5},
        {"optim.algorithm": "sgd", "optim.lr_schedule": "one_cycle", "optim.lr": 1e-4},
        {"optim.algorithm": "adamw", "optim.weight_decay": 0.1, "optim.warmup_epochs": 2.0},
    ],
    ids=["averaged cosine", "sgd one_cycle", "adamw warm-up"],
)
def test_every_optimisation_resumes_bit_equal(dataset, changes):
    whole = Trainer(config(**changes), dataset)
    states, events = [], []
    for event in whole.fit():
        events.append(event)
        states.append((through_disk(whole.state_dict()), whole.epoch))
    for state, done in states[2::5]:
        resumed = Trainer(config(**changes), dataset)
        resumed.load_state_dict(state)
        assert epochs_of(resumed.fit()) == epochs_of(events)[done:]
        assert_bit_equal(weights(resumed), weights(whole))
        assert resumed.test().metrics == whole.test().metrics


def test_the_average_of_the_weights_is_what_is_evaluated_selected_and_named(dataset):
    trainer = Trainer(config(**{"optim.ema_decay": 0.9, "train.epochs": 2}), dataset)
    plain = Trainer(config(**{"train.epochs": 2}), dataset)
    list(trainer.fit())
    list(plain.fit())
    assert_bit_equal(weights(trainer), weights(plain))  # averaging does not disturb the training
    measured = trainer.evaluator.evaluate(trainer.evaluated_model, "val", 1.0).metrics["val/elbo"]
    raw = trainer.evaluator.evaluate(trainer.model, "val", 1.0).metrics["val/elbo"]
    assert measured != raw
    assert trainer.test().best_value == measured
    assert_bit_equal(dict(trainer.best_model().state_dict()), dict(trainer.evaluated_model.state_dict()))
    assert trainer.tags["weights"] == "exponential average, decay 0.9 per step"
    assert plain.tags["weights"] == "last step"


def test_a_requested_stop_interrupts_between_steps_and_can_be_resumed(dataset, undisturbed):
    whole, _ = undisturbed
    trainer = Trainer(config(), dataset)
    events = []
    for event in trainer.fit():
        events.append(event)
        if isinstance(event, Step) and event.step == 3:
            trainer.request_stop()
    assert isinstance(events[-1], Interrupted)
    assert events[-1].step == 3
    resumed = Trainer(config(), dataset)
    resumed.load_state_dict(through_disk(trainer.state_dict()))
    list(resumed.fit())
    assert_bit_equal(weights(resumed), weights(whole))


def test_training_neither_draws_from_nor_depends_on_a_global_generator(dataset, undisturbed):
    whole, _ = undisturbed
    torch.manual_seed(99)
    np.random.seed(99)  # noqa: NPY002 - the global state is what this test is about
    random.seed(99)
    before = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()  # noqa: NPY002
    trainer = Trainer(config(), dataset)
    list(trainer.fit())
    trainer.test()
    after = torch.get_rng_state(), np.random.get_state()[1], random.getstate()  # noqa: NPY002
    assert torch.equal(before[0], after[0])
    assert np.array_equal(before[1], after[1])
    assert before[2] == after[2]
    assert_bit_equal(weights(trainer), weights(whole))


def test_the_seed_changes_weights_order_and_noise(dataset, undisturbed):
    whole, _ = undisturbed
    other = Trainer(config(seed=1), dataset)
    list(other.fit())
    assert not torch.equal(weights(other)["encoder.stem.0.weight"], weights(whole)["encoder.stem.0.weight"])


@pytest.mark.parametrize("budget", [1, 16 * 24 * 2])
def test_accumulation_takes_the_same_steps_whatever_the_pixel_budget(dataset, undisturbed, budget):
    whole, events = undisturbed
    split = Trainer(config(), dataset, pixel_budget=budget)
    metrics = epochs_of(split.fit())
    for ours, theirs in zip(metrics, epochs_of(events), strict=True):
        for key in ("train/objective", "train/kl", "train/grad_norm", "val/elbo"):
            assert ours[key] == pytest.approx(theirs[key], rel=2e-3), key
    for name, tensor in weights(split).items():
        torch.testing.assert_close(tensor, weights(whole)[name], rtol=2e-2, atol=2e-3)


def test_one_accumulated_gradient_equals_the_whole_batchs(dataset):
    """A single step of plain gradient descent shows the gradient: both differ by rounding alone."""
    results = []
    for budget in (1, 10**9):
        trainer = Trainer(config(**PLAIN_DESCENT, **{"train.effective_batch": 24}), dataset, pixel_budget=budget)
        before = weights(trainer)
        next(trainer.fit())
        results.append({name: before[name] - tensor for name, tensor in weights(trainer).items()})
    for name, gradient in results[0].items():
        torch.testing.assert_close(gradient, results[1][name], rtol=1e-4, atol=1e-5)


def test_the_step_is_the_gradient_of_the_mean_objective_in_nats_per_image(dataset):
    """An independent loop over single images gives the trainer's first gradient."""
    from vae_core.data.batches import epoch_order, load_batch
    from vae_core.random_streams import generator

    chosen = config(**PLAIN_DESCENT, **{"train.effective_batch": 5, "loss.beta": 2.0, "optim.clip_norm": 1e9})
    trainer = Trainer(chosen, dataset)
    model = copy.deepcopy(trainer.model)
    before = weights(trainer)
    next(trainer.fit())
    moved = {name: before[name] - tensor for name, tensor in weights(trainer).items()}

    noise = torch.randn(5, 3, generator=generator("z", 0, 0))
    total = torch.zeros(())
    for row, index in enumerate(epoch_order(0, 0, dataset.splits["train"])[:5]):
        batch = load_batch(dataset, np.array([index]), 8, "cpu")
        mu, logvar = model.encode(batch.images)
        logits = model.decode(mu + torch.exp(0.5 * logvar) * noise[row : row + 1], tuple(batch.images.shape[-2:]))
        mean = torch.sigmoid(logits)
        height, width = dataset.sizes[index]
        real = (slice(None), slice(None), slice(0, height), slice(0, width))
        likelihood = torch.distributions.Normal(mean[real], 1.0).log_prob(batch.images[real]).sum()
        posterior = torch.distributions.Normal(mu, torch.exp(0.5 * logvar))
        kl = torch.distributions.kl_divergence(posterior, torch.distributions.Normal(0.0, 1.0)).sum()
        total = total - likelihood + 2.0 * kl
    (total / 5).backward()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(moved[name], parameter.grad, rtol=1e-4, atol=1e-4)


def test_clipping_bounds_the_step(dataset):
    trainer = Trainer(config(**PLAIN_DESCENT, **{"optim.clip_norm": 0.5}), dataset)
    before = weights(trainer)
    next(trainer.fit())
    moved = sum(float(((before[name] - tensor) ** 2).sum()) for name, tensor in weights(trainer).items())
    assert moved**0.5 == pytest.approx(0.5, rel=1e-4)


def test_the_selected_weights_are_those_of_the_best_validation(dataset):
    trainer = Trainer(config(**{"train.epochs": 6, "optim.lr": 0.05}), dataset)
    values, kept = [], []
    for event in trainer.fit():
        if isinstance(event, Evaluation):
            values.append(event.metrics["val/elbo"])
            kept.append(weights(trainer))
    result = trainer.test()
    best = int(np.argmax(values))
    assert result.best_epoch == best + 1
    assert result.best_value == values[best]
    assert_bit_equal(dict(trainer.best_model().state_dict()), kept[best])


def test_selection_by_an_error_takes_the_smallest(dataset):
    trainer = Trainer(config(**{"train.epochs": 4, "optim.lr": 0.05, "evaluate.select": "val/mse"}), dataset)
    values = [event.metrics["val/mse"] for event in trainer.fit() if isinstance(event, Evaluation)]
    assert trainer.test().best_value == min(values)


def test_early_stopping_ends_after_the_patience(dataset):
    chosen = config(**{"train.epochs": 50, "optim.lr": 0.3, "train.early_stopping_patience": 2})
    trainer = Trainer(chosen, dataset)
    events = [event for event in trainer.fit() if isinstance(event, Epoch)]
    assert len(events) < 50
    assert events[-1].is_last
    assert trainer.test().best_epoch == len(events) - 2


def test_the_plateau_schedule_halves_the_rate_and_survives_a_resume(dataset):
    changes = {
        "train.epochs": 12,
        "optim.lr": 0.3,
        "optim.lr_schedule": "plateau",
        "optim.plateau_patience": 1,
        "optim.min_lr": 0.01,
    }
    trainer = Trainer(config(**changes), dataset)
    rates, state = [], None
    for event in trainer.fit():
        if isinstance(event, Epoch):
            rates.append(event.metrics["train/lr"])
            if event.epoch == 6:
                state = through_disk(trainer.state_dict())
    assert len(set(rates)) > 1
    assert rates == sorted(rates, reverse=True)
    assert set(rates) <= {max(0.3 * 0.5**power, 0.01) for power in range(12)}
    resumed = Trainer(config(**changes), dataset)
    resumed.load_state_dict(state)
    assert [event.metrics["train/lr"] for event in resumed.fit() if isinstance(event, Epoch)] == rates[6:]


def test_the_warm_up_is_logged_as_effective_and_normalised_beta(dataset):
    changes = {"loss.beta": 4.0, "loss.beta_schedule": "linear", "loss.warmup_epochs": 2.0}
    trainer = Trainer(config(**changes), dataset)
    epochs = [event.metrics for event in trainer.fit() if isinstance(event, Epoch)]
    steps = -(-len(dataset.splits["train"]) // 7)
    last_of_epoch = [4.0 * min(1.0, (epoch + (steps - 1) / steps) / 2) for epoch in range(3)]
    assert [metrics["train/effective_beta"] for metrics in epochs] == pytest.approx(last_of_epoch)
    pixels = np.prod(dataset.sizes[dataset.splits["train"]], axis=1).mean()
    assert epochs[-1]["train/normalised_beta"] == pytest.approx(4.0 * 3 / pixels)


@pytest.mark.parametrize(
    ("loss", "betas"),
    [
        ({"phases": [{"epochs": 2, "beta": 0.0}, {"epochs": 1, "beta": 20.0}]}, [0.0, 0.0, 20.0]),
        ({"beta": 8.0, "beta_schedule": "cyclical", "cycles": 3}, [8.0, 8.0, 8.0]),
    ],
    ids=["phases", "cyclical"],
)
def test_the_validation_objective_has_the_beta_of_the_step_before_it(dataset, loss, betas):
    trainer = Trainer(config(loss=loss), dataset)
    for event, beta in zip((event for event in trainer.fit() if isinstance(event, Evaluation)), betas, strict=True):
        metrics = event.metrics
        nll = metrics["val/mse"]  # the trained likelihood is a unit Gaussian: its part does not depend on beta
        assert nll > 0
        again = trainer.evaluator.evaluate(trainer.evaluated_model, "val", beta).metrics
        assert metrics["val/objective"] == pytest.approx(again["val/objective"])
    assert trainer.test().metrics["test/objective"] == pytest.approx(
        trainer.evaluator.evaluate(trainer.best_model(), "test", betas[-1]).metrics["test/objective"]
    )


def test_the_last_beta_is_that_of_the_last_step_taken_not_of_the_schedules_end(dataset):
    trainer = Trainer(config(loss={"beta": 2.0, "beta_schedule": "linear", "warmup_epochs": 40.0}), dataset)
    list(trainer.fit())
    steps = -(-len(dataset.splits["train"]) // 7)
    assert trainer.last_beta == pytest.approx(2.0 * (3 - 1 / steps) / 40)


def test_the_objectives_scalars_have_a_rate_of_their_own(dataset):
    moved = []
    for rate in (1e-3, 1e-1):
        changes = {"optim.lr": 1e-3, "optim.objective_lr": rate, "loss": {"sigma_mode": "learned"}}
        trainer = Trainer(config(**changes), dataset)
        next(trainer.fit())
        moved.append((abs(trainer.learner.objective.sigma.log_sigma.item()), weights(trainer)))
    assert moved[0][0] == pytest.approx(1e-3, rel=1e-3)  # Adam's first step is the rate
    assert moved[1][0] == pytest.approx(1e-1, rel=1e-3)
    assert_bit_equal(moved[0][1], moved[1][1])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"loss": {"sigma_mode": "learned"}}, "another function in every epoch with loss.sigma_mode"),
        ({"loss": {"kl_control": "pi"}}, "another function in every epoch with loss.kl_control"),
        ({"loss": {"beta_schedule": "linear", "warmup_epochs": 2.0}}, "every epoch with loss.beta_schedule"),
        ({"loss": {"phases": [{"epochs": 1, "beta": 0.0}]}}, "every epoch with loss.phases"),
    ],
)
def test_a_moving_objective_selects_no_checkpoint(changes, message):
    with pytest.raises(UserError, match=message):
        config(**changes, **{"evaluate.select": "val/objective"})


def test_the_normalised_beta_counts_every_number_of_a_spatial_latent(dataset):
    chosen = config(**{"model.bottleneck": "spatial", "loss.beta": 4.0, "train.epochs": 1})
    [epoch] = [event for event in Trainer(chosen, dataset).fit() if isinstance(event, Epoch)]
    sizes = dataset.sizes[dataset.splits["train"]]
    positions = [np.ceil(height / 8) * 2 * np.ceil(width / 8) * 2 for height, width in sizes]  # padded to 8, stride 4
    expected = 4.0 * 3 * np.mean(positions) / np.prod(sizes, axis=1).mean()
    assert epoch.metrics["train/normalised_beta"] == pytest.approx(expected)


def test_evaluation_every_few_epochs_includes_the_last(dataset):
    trainer = Trainer(config(**{"train.epochs": 5, "evaluate.every_epochs": 2}), dataset)
    evaluated = [event.epoch for event in trainer.fit() if isinstance(event, Evaluation)]
    assert evaluated == [2, 4, 5]


def test_bfloat16_autocast_trains_and_keeps_the_kl_in_float32(dataset):
    trainer = Trainer(config(**{"train.amp": "bf16"}), dataset)
    epochs = [event.metrics for event in trainer.fit() if isinstance(event, Epoch)]
    assert epochs[-1]["train/objective"] < epochs[0]["train/objective"]


def test_a_diverged_run_names_the_epoch_and_the_number(dataset):
    trainer = Trainer(config(**{"optim.lr": 1e30}), dataset)
    with pytest.raises(TrainingDivergedError, match=r"epoch 1 is not finite: .*nan.*lower optim.lr"):
        list(trainer.fit())


def test_there_is_no_test_result_before_an_evaluation(dataset):
    with pytest.raises(RuntimeError, match="no best weights before the first evaluation"):
        Trainer(config(), dataset).test()


@pytest.mark.skipif(torch.cuda.is_available(), reason="has a CUDA device")
def test_cuda_by_name_is_refused_where_there_is_none():
    with pytest.raises(DeviceMissingError, match=r"train\.device: cuda was asked for"):
        resolve_device("cuda")
