"""How many jobs are submitted for how many runs, whatever becomes of them, on a cluster that is a few shell scripts."""

import random
import re

import pytest
from support.fake_slurm import FakeSlurm, option

from experiments.launchers import LauncherError
from experiments.slurm_launcher import SlurmLauncher, job_name, worker_submission
from experiments.sweep_file import LauncherConfig
from slurm.host import outcome_file
from tracking.run_directory import StudyDirectory

TIME = "2026-03-02T10:00:00"


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    slurm = FakeSlurm(tmp_path / "bin", monkeypatch)
    slurm.accepts_jobs(first=100)
    slurm.prints("scancel")
    queue(slurm)
    return slurm


@pytest.fixture
def study(tmp_path):
    study = StudyDirectory(tmp_path / "runs" / "tiny")
    study.create()
    return study


@pytest.fixture
def launcher(study, slurm):
    def launcher(**settings):
        config = LauncherConfig.model_validate({"kind": "slurm", "slurm": {"poll_s": 1e-9, **settings}})
        return SlurmLauncher(study, worker_submission(study, config, 1, [], None))

    return launcher


def queue(slurm, **jobs):
    """Have squeue say which jobs there are: `running_100_0="n1"`, `pending_100_1="Priority"`."""
    lines = []
    for name, word in jobs.items():
        state, _, job = name.partition("_")
        node, reason = ("", word) if state == "pending" else (word, "None")
        lines.append(f"{job}|{state.upper()}|{node}|{reason}|{TIME}|{TIME}\n")
    slurm.prints("squeue", "".join(lines))


def sizes(slurm):
    """Return how many jobs each submission was."""
    return [int(re.search(r"-(\d+)%", array)[1]) + 1 if array else 1 for array in slurm.options("array")]


COUNTS = [
    (1, {}, 1),
    (3, {}, 3),
    (100, {}, 8),  # array_parallelism's default: jobs go on from run to run
    (100, {"array_parallelism": 2}, 2),
    (5, {"gpus": 2}, 3),
    (5, {"workers_per_gpu": 2}, 3),
    (100, {"gpus": 2, "workers_per_gpu": 4, "array_parallelism": 3}, 3),
    (5, {"gpus": 0, "workers_per_gpu": 5}, 1),
    (100, {"runs_per_job": 1}, 100),  # that many jobs, of which array_parallelism run at once
    (100, {"runs_per_job": 3}, 34),
    (100, {"runs_per_job": 3, "gpus": 2, "workers_per_gpu": 2}, 9),
    (0, {"runs_per_job": 3}, 0),
    (0, {}, 0),
]


@pytest.mark.parametrize(("runs", "settings", "jobs"), COUNTS)
def test_so_many_jobs_are_submitted_for_so_many_runs_and_once(launcher, slurm, runs, settings, jobs):
    found = launcher(**settings)
    found.ensure(runs)
    assert sum(sizes(slurm)) == jobs
    parallel = found._settings.array_parallelism
    if jobs > 1:
        assert slurm.options("array") == [f"0-{jobs - 1}%{min(jobs, parallel)}"]
    queue(slurm, **{f"pending_100_{task}" if jobs > 1 else "pending_100": "Priority" for task in range(jobs)})
    found.ensure(runs)
    assert len(slurm.asked("sbatch")) == min(1, jobs)


def test_what_a_job_runs(study):
    slurm = {"gpus": 2, "workers_per_gpu": 4, "runs_per_job": 3, "signal_delay_s": 60}
    config = LauncherConfig(kind="slurm", slurm=slurm, idle_timeout_s=7.0, stall_timeout_s=70.0)
    submission = worker_submission(study, config, 2, [], None)
    host = submission.host
    words = " ".join(host.command)
    assert words.startswith(f"{{python}} -m experiments.worker {study.path} --name {{name}} --job {{job}} --gpus 0.25 ")
    assert "--wait-s {wait_s} --seconds-left {seconds_left} " in words
    assert words.endswith("--idle-timeout-s 7.0 --stall-timeout-s 70.0 --max-runs 3")
    assert (host.slots, host.workers_per_gpu, host.signal_delay_s) == (8, 4, 60)
    assert host.presence == str(study.workers)
    assert submission.threads == 2
    cpu = worker_submission(study, LauncherConfig(kind="slurm", slurm={"gpus": 0}), 1, [], None)
    assert " --gpus 0 " in " ".join(cpu.host.command)
    assert "--max-runs" not in cpu.host.command


def test_studies_of_one_name_in_two_places_do_not_see_each_others_jobs(study, tmp_path, slurm, launcher):
    assert job_name(study).startswith("vae-sweep-tiny-")
    assert job_name(study) != job_name(StudyDirectory(tmp_path / "other" / "tiny"))
    launcher().ensure(1)
    assert f"--name {job_name(study)} " in slurm.asked("squeue")[0]
    assert slurm.options("job-name") == [job_name(study)]


def test_jobs_of_an_earlier_coordinator_count(launcher, slurm):
    queue(slurm, running_50_0="n1", pending_50_1="Priority")
    found = launcher(array_parallelism=4)
    found.ensure(2)
    assert slurm.scripts() == []
    found.ensure(10)
    assert sizes(slurm) == [2]


def test_a_cancelled_pending_element_is_replaced(launcher, slurm):
    found = launcher(array_parallelism=3)
    found.ensure(10)
    queue(slurm, running_100_0="n1", running_100_2="n1")
    found.ensure(10)
    assert sizes(slurm) == [3, 1]
    assert slurm.options("dependency") == [None, None]  # there is room for it


def test_where_there_is_no_room_the_replacement_waits(launcher, slurm):
    found = launcher(array_parallelism=2, runs_per_job=1)
    found.ensure(4)
    queue(slurm, running_100_0="n1", running_100_1="n1", pending_100_2="JobArrayTaskLimit")
    found.ensure(4)  # one was cancelled: what the array still holds comes first
    assert sizes(slurm) == [4]
    queue(slurm, running_100_2="n1")
    found.ensure(4)
    assert sizes(slurm) == [4, 1]
    assert slurm.options("dependency") == [None, None]


class Cluster:
    """Arrays with their limits and dependencies, started as Slurm would, ended at random."""

    def __init__(self, slurm, seed):
        self.slurm, self.chance = slurm, random.Random(seed)
        self.jobs: dict[str, str] = {}
        self.arrays: dict[str, tuple[int, list[str]]] = {}

    def step(self):
        for number, script in enumerate(self.slurm.scripts(), start=100):
            if str(number) not in self.arrays:
                array, after = option(script, "array"), option(script, "dependency")
                limit = int(array.partition("%")[2]) if array else 1
                count = int(re.search(r"-(\d+)%", array)[1]) + 1 if array else 1
                self.arrays[str(number)] = limit, after.split(":")[1:] if after else []
                self.jobs |= {f"{number}_{task}" if array else str(number): "pending" for task in range(count)}
        for job in [job for job in self.jobs if self.chance.random() < 0.2]:
            del self.jobs[job]  # ended, or cancelled
        for job, state in self.jobs.items():
            limit, after = self.arrays[job.partition("_")[0]]
            running = [other for other in self._of(job.partition("_")[0]) if self.jobs[other] == "running"]
            if state == "pending" and len(running) < limit and not any(self._of(array) for array in after):
                self.jobs[job] = "running"
        queue(self.slurm, **{f"{state}_{job}": "n1" for job, state in self.jobs.items()})

    def _of(self, array):
        return [job for job in self.jobs if job.partition("_")[0] == array]

    @property
    def running(self):
        return sum(state == "running" for state in self.jobs.values())


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("settings", [{}, {"runs_per_job": 1}, {"runs_per_job": 2, "workers_per_gpu": 2}])
def test_never_more_jobs_run_than_allowed_whatever_ends_or_is_cancelled(launcher, slurm, settings, seed):
    slurm.accepts_jobs(first=100, max_array_size=4)
    found = launcher(array_parallelism=3, **settings)
    cluster = Cluster(slurm, seed)
    seen = []
    for wanted in range(30, 10, -1):
        found.ensure(wanted)
        cluster.step()
        seen.append(cluster.running)
        assert seen[-1] <= 3
    assert max(seen) > 1


def ended(study, job, said="", outcome=None):
    """Leave behind what a job that began leaves: its log, and how far it came."""
    folder = study.slurm / "0123abcd"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{job}_0_log.err").write_text(said)
    (folder / f"{job}_0_log.out").write_text("")
    if outcome:
        outcome_file(folder, job, 0).write_text(outcome)


@pytest.mark.parametrize("outcome", [None, "crashed"])
def test_three_jobs_in_a_row_that_fail_end_it_with_the_last_ones_log(launcher, slurm, study, outcome):
    found = launcher(array_parallelism=1)
    for number in (100, 101):
        found.ensure(5)
        ended(study, str(number), "module: not found", outcome)
    found.ensure(5)
    ended(study, "102", "x" * 3000 + "module cuda/99: not found", outcome)
    message = (
        r"3 jobs in a row failed; the last one, 102, said \(.*102_0_log\.err\):\nx{1975}module cuda/99: not found$"
    )
    with pytest.raises(LauncherError, match=message):
        found.ensure(5)
    assert len(slurm.asked("sbatch")) == 3


@pytest.mark.parametrize("outcome", ["left", "started"])
def test_a_job_that_worked_or_was_killed_in_between_begins_the_count_anew(launcher, study, outcome):
    found = launcher(array_parallelism=1)
    for number in range(100, 107):
        found.ensure(5)
        ended(study, str(number), "said", outcome if number % 3 == 2 else "crashed")
    found.ensure(5)


def test_jobs_that_never_began_have_not_failed(launcher, slurm):
    found = launcher(array_parallelism=1)
    for _ in range(6):  # each is cancelled while it waits
        found.ensure(5)
    assert len(slurm.asked("sbatch")) == 6


def test_crashes_of_jobs_whose_workers_had_runs_are_the_runs_affair(launcher, slurm, study):
    found = launcher(array_parallelism=1)
    for number in range(100, 106):
        found.ensure(5)
        found.at_work(str(number))
        ended(study, str(number), "killed", "crashed")
    found.ensure(5)


def test_while_other_jobs_are_at_work_failures_are_a_pause(launcher, slurm, study):
    found = launcher(array_parallelism=2)
    found.ensure(5)
    queue(slurm, running_100_0="n1")
    for job in ("100_1", "101", "102"):
        ended(study, job, "module: not found")
        found.ensure(5)
    assert "3 jobs in a row failed; the last one, 102, said" in found.words()
    found.ensure(5)
    assert sizes(slurm) == [2, 1, 1]


def test_while_the_scheduler_is_silent_nothing_is_submitted_twice(launcher, slurm, study):
    found = launcher(array_parallelism=2)
    found.ensure(5)
    slurm.refuses("squeue")
    for _ in range(3):
        found.ensure(5)
    ended(study, "100_0", "said", "started")
    found.ensure(5)
    assert sizes(slurm) == [2]
    assert found.job_state("100_0") is None
    assert "the scheduler does not answer (squeue: Unable to contact" in found.words()


def test_nor_where_it_has_never_answered(launcher, slurm, study):
    """What was submitted is known from the files, also to the next coordinator."""
    slurm.refuses("squeue")
    for found in (launcher(array_parallelism=2), launcher(array_parallelism=2)):
        for _ in range(3):
            found.ensure(5)
    assert sizes(slurm) == [2]
    ended(study, "100_0", "said", "left")
    found.ensure(5)
    assert sizes(slurm) == [2, 1]


def test_a_job_whose_worker_was_lost_has_ended_for_a_silent_scheduler(launcher, slurm, study):
    found = launcher(array_parallelism=2)
    found.ensure(5)
    slurm.refuses("squeue")
    found.lost("100_1")
    found.ensure(5)
    assert sizes(slurm) == [2, 1]
    found.ensure(5)
    assert sizes(slurm) == [2, 1]
    ended(study, "100_0", "said", "left")
    found.ensure(5)
    assert sizes(slurm) == [2, 1, 1]


def test_one_that_answers_knows_better(launcher, slurm):
    found = launcher(array_parallelism=2)
    found.ensure(5)
    queue(slurm, running_100_0="n1", running_100_1="n2")
    found.lost("100_1")
    found.ensure(5)
    assert sizes(slurm) == [2]
    assert found.job_state("100_1") == "running"
    assert found.job_state("99") == "ended"


def test_a_refused_submission_is_tried_again_after_a_pause(launcher, slurm):
    slurm.refuses("sbatch", "Socket timed out")
    found = launcher()
    for _ in range(3):
        found.ensure(1)
    assert len(slurm.asked("sbatch")) == 1
    assert re.search(
        r"sbatch: Socket timed out; the script is in .*; the next attempt is in 5 s$", found.words()
    )


def test_refused_again_and_again_is_the_launchers_error(launcher, slurm, monkeypatch):
    monkeypatch.setattr("experiments.slurm_launcher._FIRST_PAUSE_S", 0.0)
    slurm.refuses("sbatch", "Invalid partition name specified")
    found = launcher()
    for _ in range(6):
        found.ensure(1)
    with pytest.raises(LauncherError, match=r"Invalid partition name specified; .*; 7 times in a row$"):
        found.ensure(1)


def test_the_words_say_where_jobs_run_and_why_they_wait(launcher, slurm):
    found = launcher()
    assert found.words() is None
    queue(slurm, running_1="n1", running_2="n1", running_3="n2", completing_4="n2", pending_5="Priority")
    found.ensure(1)
    words = r"jobs: 3 running \(2 on n1, 1 on n2\); 1 waiting \(Priority\), the longest for \d+ s"
    assert re.fullmatch(words, found.words())


def test_to_stop_workers_are_told_and_jobs_that_have_not_begun_cancelled(launcher, slurm, study):
    queue(slurm, running_7_0="n1", completing_7_1="n1", pending_7_2="Priority", pending_8="Priority")
    launcher().request_stop()
    assert study.stop_file.exists()
    assert slurm.asked("scancel") == ["7_2 8"]


def test_the_end_is_waited_for(launcher, slurm):
    assert launcher().wait(5.0)
    assert slurm.asked("scancel") == []


def test_a_job_that_only_waits_to_come_back_is_cancelled(launcher, slurm):
    queue(slurm, pending_7_0="BeginTime")
    slurm.runs("scancel", f": > {slurm.folder}/squeue.text")
    assert launcher().wait(5.0)
    assert slurm.asked("scancel") == ["7_0"]


def test_what_does_not_end_in_time_is_cancelled(launcher, slurm):
    queue(slurm, running_7_0="n1", pending_7_1="Priority")
    assert not launcher().wait(0.1)
    assert slurm.asked("scancel") == ["7_0 7_1"]


def test_nobody_waits_for_a_silent_scheduler(launcher, slurm):
    slurm.refuses("squeue")
    assert not launcher().wait(60.0)


def test_where_cancelling_does_not_work_the_command_to_do_it_is_named(launcher, slurm, study):
    queue(slurm, pending_7_0="Priority")
    slurm.refuses("scancel", "Access denied")
    found = launcher()
    found.request_stop()
    assert found.words().endswith(f"Access denied; to end the jobs by hand: scancel --name {job_name(study)}")
    assert study.stop_file.exists()


def test_the_files_are_looked_at_less_often_than_the_scheduler_is_slow(launcher):
    pace = launcher(poll_s=0.001).pace()
    for _ in range(3):
        next(pace)
