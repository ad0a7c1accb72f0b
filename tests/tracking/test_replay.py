import pytest

from tracking.replay import covered, gpu_hours, metric_rows, run_name, run_tags
from tracking.run_directory import read_chain


def covered_epochs(run):
    chain = covered(read_chain(run.directory))
    return [item.line.fields["epoch"] for item in chain if item.line.kind == "epoch"]


def test_the_older_of_the_two_newest_checkpoints_is_what_counts(written_run):
    written_run.open(0)
    first = written_run.epoch(1)
    written_run.checkpoint(1, first.n)
    assert covered_epochs(written_run) == []
    second = written_run.epoch(2)
    assert covered_epochs(written_run) == []
    written_run.checkpoint(1, first.n)  # within an epoch: it covers no further line
    assert covered_epochs(written_run) == [1]
    written_run.checkpoint(2, second.n)
    assert covered_epochs(written_run) == [1]
    written_run.checkpoint(2, second.n)
    assert covered_epochs(written_run) == [1, 2]


def test_the_checkpoint_an_attempt_started_from_is_one_of_the_two(written_run):
    written_run.open(0)
    written_run.saved_epoch(1)
    second = written_run.saved_epoch(2)
    written_run.saved_epoch(3)
    written_run.open(1, continues=(0, second.n))
    assert covered_epochs(written_run) == [1]
    written_run.saved_epoch(3)
    assert covered_epochs(written_run) == [1, 2]
    written_run.saved_epoch(4)
    assert covered_epochs(written_run) == [1, 2, 3]


def test_everything_counts_once_a_run_is_done_and_not_when_an_attempt_failed(written_run):
    written_run.open(0)
    written_run.saved_epoch(1)
    written_run.end("failed", "oom", "out of memory")
    assert covered_epochs(written_run) == []
    written_run.open(1)
    written_run.saved_epoch(1)
    written_run.end()
    assert covered_epochs(written_run) == [1]


def test_test_metrics_stand_at_the_best_epoch(written_run):
    written_run.open(0)
    written_run.epoch(1)
    written_run.epoch(2)
    written_run.result(best_epoch=1)
    rows = [(row.key, row.step, row.value) for row in metric_rows(read_chain(written_run.directory))]
    assert rows == [
        ("train/kl", 1, 1.0),
        ("val/elbo", 1, 1.125),
        ("train/kl", 2, 2.0),
        ("val/elbo", 2, 2.125),
        ("test/elbo", 1, -3.5),
    ]


def test_gpu_hours_are_those_of_all_attempts_by_their_share(written_run, monkeypatch):
    hour_ns = 3_600_000_000_000
    now = [0]
    monkeypatch.setattr("tracking.journal.time.time_ns", lambda: now[0])
    written_run.open(0, gpus=1.0, job="7_0", host="n1")
    now[0] += hour_ns
    written_run.epoch(1)  # lost beyond this: nobody knows how long it lived
    now[0] += 5 * hour_ns
    written_run.open(1, gpus=0.5, job="7_0", host="n2")
    now[0] += 3 * hour_ns
    written_run.saved_epoch(1)
    now[0] += 9 * hour_ns
    written_run.open(2)  # on a CPU
    now[0] += hour_ns
    written_run.end()
    assert gpu_hours(written_run.directory) == 1.0 * 1 + 0.5 * 3


def test_the_tags_of_a_run_say_where_its_newest_attempt_runs(written_run):
    gpu = {"device_name": "NVIDIA H100", "driver": "580.1", "cpu": "not a tag"}
    first = written_run.open(0, gpus=1.0, job="7_0", host="n1", device="cuda:0", machine=gpu)
    place = {"host": "n1", "device": "cuda:0", "device_name": "NVIDIA H100", "driver": "580.1"}
    expected = {"attempt": "0", "slurm_job": "7_0", "node": "n1", **place}
    assert run_tags(read_chain(written_run.directory)) == expected
    written_run.open(1, continues=(0, first.n), gpus=0.0, job=None, host="laptop", device="cpu", machine={})
    assert run_tags(read_chain(written_run.directory)) == {"attempt": "1", "host": "laptop", "device": "cpu"}


def test_of_a_numbered_series_the_first_four_of_the_val_split_are_shown(written_run):
    written_run.open(0)
    series = [f"{split}/kl_group_{group}" for split in ("latent", "test") for group in range(64)]
    written_run.epoch(1, keys=["val/elbo", "train/term_ms_ssim", *series])
    keys = [row.key for row in metric_rows(read_chain(written_run.directory))]
    assert keys == ["val/elbo", "train/term_ms_ssim", *series[:4]]


def test_what_the_machine_did_is_shown_beside_what_was_measured(written_run):
    written_run.open(0)
    written_run.journal.append("epoch", epoch=3, metrics={"val/kl": 1.0}, system={"system/cpu_percent": 50.0})
    rows = [(row.key, row.step, row.value) for row in metric_rows(read_chain(written_run.directory))]
    assert rows == [("val/kl", 3, 1.0), ("system/cpu_percent", 3, 50.0)]


@pytest.mark.parametrize(
    ("cell", "params", "name"),
    [
        ("loss.beta=4.0", {"loss.beta": 4.0}, "beta=4.0 seed=1"),
        ("loss.beta=4.0 model.block=plain", {"loss.beta": 4.0, "model.block": "plain"}, "beta=4.0 block=plain seed=1"),
        (
            "optim.warmup_epochs=1 loss.warmup_epochs=2 loss.beta=3",
            {"optim.warmup_epochs": 1, "loss.warmup_epochs": 2, "loss.beta": 3},
            "optim.warmup_epochs=1 loss.warmup_epochs=2 beta=3 seed=1",
        ),
        (
            "loss.terms.ssim=0.1 model.encoder_widths=[4, 8]",
            {"loss.terms.ssim": 0.1, "model.encoder_widths": [4, 8]},
            "ssim=0.1 encoder_widths=[4, 8] seed=1",
        ),
        ("+gradient loss.beta=0.1", {"loss.terms.gradient": 1.0, "loss.beta": 0.1}, "+gradient beta=0.1 seed=1"),
        ("base", {}, "seed=1"),
    ],
)
def test_a_run_is_named_after_what_was_swept_in_as_few_words_as_are_clear(cell, params, name):
    assert run_name(cell, params, 1) == name
