"""What a site says of itself, read from a real Slurm and from commands that print as other sites' do."""

import pytest
from support.fake_site import PARTITIONS, fake_site
from support.slurm import slurm

from slurm.commands import UnansweredError
from slurm.site import Configuration, Partition, configuration, gpus_of, node_hosts, partitions

PREEMPTION = {"preempttype": "preempt/qos", "preemptmode": "REQUEUE"}


def test_a_real_site_says_what_it_was_started_with(sandbox):
    site = configuration()
    assert site.text("ClusterName") == "sandbox"
    assert site.text("SLURM_VERSION") == slurm("sinfo", "--version").stdout.split()[-1]
    assert (site.preempts, site.signals_preemption) == (True, True)
    assert site.credential_s == 5
    assert site.number("KillWait") == 5
    assert site.number("MaxArraySize") == sandbox.settings.max_array_size
    assert node_hosts() == {"localhost"}


def test_real_partitions_change_with_their_nodes_and_settings(sandbox):
    main, high = partitions()
    assert main == Partition("main", "UP", True, False, None, 20, "REQUEUE", 2, 2, ("gpu:2",))
    assert (high.name, high.default, high.grace_s, high.preempt_mode) == ("high", False, 0, "OFF")
    slurm("scontrol", "update", "partitionname=high", "state=drain", "maxtime=1-00:30:01", "hidden=yes")
    slurm("scontrol", "update", "nodename=n2", "state=down", "reason=test")
    try:
        main, high = partitions()
    finally:
        slurm("scontrol", "update", "partitionname=high", "state=up", "maxtime=unlimited", "hidden=no")
        slurm("scontrol", "update", "nodename=n2", "state=resume")
    assert (main.nodes, main.nodes_up) == (2, 1)
    assert (high.state, high.max_time_min, high.hidden) == ("DRAIN", 24 * 60 + 31, True)


def test_kinds_of_nodes_are_summed_and_the_best_counts(tmp_path, monkeypatch):
    fake_site(tmp_path / "bin", monkeypatch)
    found = {partition.name: partition for partition in partitions()}
    gpu = Partition("gpu", "UP", False, False, 2880, 60, "REQUEUE", 5, 4, ("gpu:a100:4(S:0-1)", "gpu:v100:2,shard:8"))
    assert found["gpu"] == gpu
    assert {name: each.gpus for name, each in found.items()} == {"cpu": 0, "gpu": 4, "long": 0, "staff": 8, "empty": 2}
    assert [name for name, each in found.items() if each.hidden] == ["staff"]
    assert [name for name, each in found.items() if each.default] == ["cpu"]
    assert node_hosts() == {"c01", "c02", "c03", "c04", "g01"}
    asked = (tmp_path / "bin" / "asked").read_text().splitlines()
    assert len([line for line in asked if "--all" in line]) == len(asked) == 3  # whom partitions are hidden from asks


def test_settings_are_found_whatever_their_case_and_absent_ones_are_empty(tmp_path, monkeypatch):
    fake_site(tmp_path / "bin", monkeypatch)
    site = configuration()
    assert site.text("slurm_version") == site.text("SLURM_VERSION") == "23.02.6"
    assert (site.text("PowerPlugin"), site.text("AuthInfo"), site.text("Nothing")) == ("", "", "")
    assert (site.number("KillWait"), site.number("PowerPlugin")) == (30, None)
    assert site.text("SchedulerParameters") == "batch_sched_delay=0,bf_interval=1"
    assert site.credential_s == 120


@pytest.mark.parametrize(
    ("values", "preempts", "signals"),
    [
        (PREEMPTION, True, False),
        (PREEMPTION | {"slurmctldparameters": "idle_on_node_suspend,preempt_send_user_signal"}, True, True),
        (PREEMPTION | {"preemptparameters": "youngest_first,send_user_signal"}, True, True),
        (PREEMPTION | {"slurmctldparameters": "no_preempt_send_user_signal"}, True, False),
        (PREEMPTION | {"preempttype": "preempt/none"}, False, False),
        (PREEMPTION | {"preempttype": "(null)"}, False, False),  # how 25.11 says none
        ({}, False, False),
    ],
)
def test_how_a_site_preempts(values, preempts, signals):
    site = Configuration(values)
    assert (site.preempts, site.signals_preemption) == (preempts, signals)


@pytest.mark.parametrize(
    ("gres", "count"),
    [
        ("(null)", 0),
        ("gpu", 1),
        ("gpu:2", 2),
        ("gpu:a100:4(S:0-1)", 4),
        ("gpu:a100:4(S:0,1),gpu:v100:2(S:1)", 6),
        ("craynetwork:4,gpu:tesla:1", 1),
        ("shard:gpu:16,mps:200", 0),
    ],
)
def test_gpus_are_counted_in_what_slurm_calls_generic_resources(gres, count):
    assert gpus_of(gres) == count


def test_a_form_that_is_not_known_is_an_error_and_not_a_guess(tmp_path, monkeypatch):
    fake_site(tmp_path / "bin", monkeypatch, partitions=PARTITIONS.replace("MaxTime=08:00:00", "MaxTime=soon"))
    with pytest.raises(ValueError, match="soon"):
        partitions()
    fake_site(tmp_path / "bin", monkeypatch, partitions=PARTITIONS.replace("MaxTime=", "LongestTime="))
    with pytest.raises(KeyError, match="MaxTime"):
        partitions()


def test_a_site_that_does_not_answer_is_told_from_an_empty_one(tmp_path, monkeypatch):
    fake_site(tmp_path / "bin", monkeypatch, partitions="No partitions in the system\n", hosts="")
    assert partitions() == []
    assert node_hosts() == set()
    (tmp_path / "bin" / "scontrol").write_text("#!/bin/sh\necho 'slurm_load_ctl_conf error: refused' >&2\nexit 1\n")
    with pytest.raises(UnansweredError, match="scontrol: slurm_load_ctl_conf error: refused"):
        configuration()
