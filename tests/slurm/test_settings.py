"""What a job asks for: sbatch's own ways to write a time, and mistakes that sbatch would only find at submission."""

import pytest
from pydantic import ValidationError

from slurm.settings import SlurmSettings, minutes


@pytest.mark.parametrize(
    ("time", "expected"),
    [
        (90, 90),
        ("90", 90),
        ("1:30", 2),
        ("1:00", 1),
        ("0:01", 1),
        ("00:45:00", 45),
        ("1:30:00", 90),
        ("1:30:01", 91),
        ("48:00:00", 2880),
        ("2-00:00:00", 2880),
        ("1-12", 2160),
        ("1-12:30", 2190),
        ("1-12:30:30", 2191),
        ("0-0:30", 30),
        (" 30 ", 30),
    ],
)
def test_a_time_is_read_as_sbatch_reads_it_and_never_cut_short(time, expected):
    assert minutes(time) == expected
    settings = SlurmSettings(time=time, coordinator_time=time, signal_delay_s=1)
    assert (settings.time, settings.coordinator_time) == (expected, expected)


@pytest.mark.parametrize(
    "time", ["soon", "", "1-", "-5", "1:2:3:4", "1:234", "1.5", "4h", "12-1:00:00:00", True, 1.5, []]
)
def test_what_is_no_time_is_refused_with_the_forms_that_are(time):
    assert minutes(time) == time
    with pytest.raises(ValidationError, match=r'time\n.*must be minutes, "MM:SS", "HH:MM:SS" or "D-HH:MM:SS"'):
        SlurmSettings(time=time)


@pytest.mark.parametrize("time", [0, "0:00", -1])
def test_a_job_lasts_a_minute_at_least(time):
    with pytest.raises(ValidationError, match="greater than or equal to 1"):
        SlurmSettings(time=time)


@pytest.mark.parametrize("name", ["time", "coordinator_time"])
def test_a_job_whose_signal_would_come_at_its_start_is_refused(name):
    for delay_s in (120, 121):
        message = f"signal_delay_s: must be shorter than time and coordinator_time, 120 s; got {delay_s}"
        with pytest.raises(ValidationError, match=message):
            SlurmSettings(**{name: 2, "signal_delay_s": delay_s})
    assert SlurmSettings(**{name: 2, "signal_delay_s": 119}).signal_delay_s == 119


MISTAKES = [
    ({"extra": {"time": 5}}, "time: is set elsewhere; use time"),
    ({"extra": {"gpus-per-node": 2}}, "gpus-per-node: is set elsewhere; use gpus"),
    ({"extra": {"array": "0-3"}}, "array: is set elsewhere; use array_parallelism"),
    ({"extra": {"signal": "TERM@60"}}, "signal: is set elsewhere; use signal_delay_s"),
    (
        {"extra": {"job-name": "x"}},
        "job-name: is set elsewhere; use nothing: the launcher finds its jobs by their name",
    ),
    ({"extra": {"ntasks": 2}}, "ntasks: is set elsewhere; use workers_per_gpu"),
    ({"extra": {"wait": True}}, "wait: is set elsewhere; use nothing: the launcher goes on once a job is queued"),
    ({"extra": {"no-requeue": True}}, "no-requeue: is set elsewhere; use nothing: jobs requeue themselves"),
    ({"extra": {"parsable": True}}, "parsable: is set elsewhere; use nothing: the launcher reads what sbatch prints"),
    ({"extra": {"--mail-type": "END"}}, "--mail-type: write sbatch's long name without dashes in front"),
    ({"extra": {"mail_type": "END"}}, "mail_type: write sbatch's long name without dashes in front, such as mail-type"),
    ({"extra": {"Comment": "x"}}, "Comment: write sbatch's long name"),
    ({"extra": {"comment": 1.5}}, r"extra.comment"),
    ({"environment": {"2X": "1"}}, "'2X' cannot name an environment variable"),
    ({"environment": {"A B": "1"}}, "'A B' cannot name an environment variable"),
    ({"environment": {"X": 1}}, r"environment.X\n.*valid string"),
    ({"setup": ["  #SBATCH --mem=4G"]}, "comes too late to be read by sbatch; use extra"),
    ({"gpus": -1}, "gpus\n.*greater than or equal to 0"),
    ({"gpu": 1}, "gpu\n.*Extra inputs are not permitted"),
    ({"array_parallelism": 0}, "array_parallelism\n.*greater than or equal to 1"),
    ({"poll_s": float("inf")}, "poll_s\n.*finite number"),
]


@pytest.mark.parametrize(("tree", "message"), MISTAKES)
def test_a_mistake_is_named_with_what_is_valid(tree, message):
    with pytest.raises(ValidationError, match=message):
        SlurmSettings(**tree)


def test_options_of_ones_own_are_kept_as_they_are():
    extra = {"mail-type": "END", "exclusive": True, "nice": 100, "gres-flags": "enforce-binding"}
    settings = SlurmSettings(extra=extra, environment={"_OK2": "a b"}, setup=["module load cuda # SBATCH"])
    assert settings.extra == extra


@pytest.mark.parametrize(
    ("gpus", "workers_per_gpu", "slots"), [(1, 1, 1), (2, 1, 2), (1, 3, 3), (2, 2, 4), (0, 1, 1), (0, 4, 4)]
)
def test_a_job_hosts_workers_for_each_of_its_gpus(gpus, workers_per_gpu, slots):
    assert SlurmSettings(gpus=gpus, workers_per_gpu=workers_per_gpu).slots == slots
