"""How many jobs are submitted for how many runs, whatever becomes of them, on a cluster that is a few shell scripts."""

import os
import random
import re
import shutil
import time
from functools import partial
from itertools import pairwise
from types import SimpleNamespace

import pytest
from support.fake_slurm import FakeSlurm, option

from experiments.launchers import LauncherError
from experiments.slurm_launcher import SlurmLauncher, worker_submission
from experiments.slurm_names import job_name, keep_job_name
from experiments.sweep_file import LauncherConfig
from slurm.commands import ask
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


@pytest.fixture
def clock(monkeypatch):
    """Seconds that pass only when a test says so: for pauses, and for a launcher that `timed` was given."""
    clock = [1000.0]
    monkeypatch.setattr("experiments.slurm_pauses.time", SimpleNamespace(monotonic=lambda: clock[0]))
    return clock


def timed(launcher, clock):
    launcher._scheduler.clock = lambda: clock[0]
    return launcher


def repeat(look, clock, seconds, step_s=5.0):
    end = clock[0] + seconds
    while clock[0] < end:
        look()
        clock[0] += step_s


def asked_within(launcher, clock, seconds, step_s=1.0):
    """Have the launcher look every `step_s`."""
    repeat(lambda: launcher.ensure(100), clock, seconds, step_s)


def queue(slurm, **jobs):
    """Have squeue say which jobs there are: `running_100_0="n1"`, `pending_100_1="Priority"`, `failed_100_2="n1"`."""
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


def test_a_study_has_one_name_for_its_jobs_however_its_path_is_spelled(study, tmp_path):
    (tmp_path / "link").symlink_to(study.path.parent)
    spellings = [study.path, study.path.parent / ".." / "runs" / "tiny", tmp_path / "link" / "tiny"]
    before = job_name(study)
    keep_job_name(study)
    for path in spellings:
        assert job_name(StudyDirectory(path)) == before
        keep_job_name(StudyDirectory(path))
    assert job_name(study) == before
    shutil.copytree(study.path, tmp_path / "copy" / "tiny")
    copied = StudyDirectory(tmp_path / "copy" / "tiny")
    own = job_name(copied)
    assert own != before  # what is done with a copy must not meet the jobs of its original
    keep_job_name(copied)
    assert job_name(copied) == own


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
    queue(slurm, running_100_0="n1", running_100_2="n1", cancelled_100_1="")
    found.ensure(10)
    assert sizes(slurm) == [3, 1]
    assert slurm.options("dependency") == [None, None]  # there is room for it


def test_where_there_is_no_room_the_replacement_waits(launcher, slurm):
    found = launcher(array_parallelism=2, runs_per_job=1)
    found.ensure(4)
    queue(slurm, running_100_0="n1", running_100_1="n1", pending_100_2="JobArrayTaskLimit", cancelled_100_3="")
    for job in ("100_0", "100_1"):
        found.at_work(job)
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
        ended = [job for job in self.jobs if self.chance.random() < 0.2]
        for job in ended:
            del self.jobs[job]
        for job, state in self.jobs.items():
            limit, after = self.arrays[job.partition("_")[0]]
            running = [other for other in self._of(job.partition("_")[0]) if self.jobs[other] == "running"]
            if state == "pending" and len(running) < limit and not any(self._of(array) for array in after):
                self.jobs[job] = "running"
        states = self.jobs | dict.fromkeys(ended, "cancelled")
        queue(self.slurm, **{f"{state}_{job}": "n1" for job, state in states.items()})

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
        for job, state in cluster.jobs.items():
            if state == "running":
                found.at_work(job)
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
        queue(slurm, **{f"failed_{number}": "n1"})
    found.ensure(5)
    ended(study, "102", "x" * 3000 + "module cuda/99: not found", outcome)
    queue(slurm, failed_102="n1")
    message = (
        r"3 jobs in a row failed; the last one, 102, said \(.*102_0_log\.err\):\nx{1975}module cuda/99: not found$"
    )
    with pytest.raises(LauncherError, match=message):
        found.ensure(5)
    assert len(slurm.asked("sbatch")) == 3


def test_a_job_that_left_in_between_begins_the_count_anew(launcher, slurm, study):
    found = launcher(array_parallelism=1)
    for number in range(100, 107):
        found.ensure(5)
        ended(study, str(number), "said", "left" if number % 3 == 2 else "crashed")
    found.ensure(5)
    assert len(slurm.asked("sbatch")) == 8


FRUITLESS = [
    (None, None, r"left no log"),  # the node does not see the folder, a prolog fails, somebody cancels it
    ("started", "oom_kill event", r"said \(.*_0_log\.err\)"),  # killed with all its processes
]


@pytest.mark.parametrize(("outcome", "said", "end"), FRUITLESS)
def test_jobs_that_come_to_nothing_are_followed_by_ever_fewer_and_then_none(
    launcher, slurm, study, clock, outcome, said, end
):
    found = timed(launcher(array_parallelism=8), clock)
    submitted_at = []

    def look():
        before = len(slurm.scripts())
        found.ensure(100)
        if before == len(slurm.scripts()):
            return
        submitted_at.append(clock[0])
        jobs = [str(100 + before)] if before else [f"100_{task}" for task in range(8)]
        for job in jobs if said else []:
            ended(study, job, said, outcome)
        queue(slurm, **{f"failed_{job}": "n1" for job in jobs})

    repeat(look, clock, 225)
    assert re.fullmatch(
        rf"1\d jobs in a row ended before a worker had a run; .* {end}; (the next|one job) .*", found.words()
    )
    message = f"15 jobs in a row ended before a worker had a run.*{end}; likely causes: .*launcher.slurm.mem"
    with pytest.raises(LauncherError, match=message) as error:
        repeat(look, clock, 300)
    assert f"sacct --name {job_name(study)} " in str(error.value)
    assert sizes(slurm) == [8, 1, 1, 1, 1, 1, 1, 1]
    pauses = [after - before for before, after in pairwise(submitted_at)]
    assert pauses == pytest.approx([5, 10, 20, 40, 60, 60, 60], abs=5)


def test_while_one_of_them_is_tried_it_is_waited_for(launcher, slurm, clock):
    found = timed(launcher(array_parallelism=3), clock)
    found.ensure(5)
    queue(slurm, cancelled_100_0="", cancelled_100_1="", cancelled_100_2="")
    for number in range(40):
        clock[0] += 10.0
        found.ensure(5)
        queue(slurm, pending_101="Priority") if number else None
    assert sizes(slurm) == [3, 1]
    assert found.words().endswith("the last one, 100_2, left no log; one job at a time is tried")
    found.at_work("101")
    clock[0] += 10.0
    found.ensure(5)
    assert sizes(slurm) == [3, 1, 2]
    assert "in a row" not in found.words()


def test_a_node_that_swallows_jobs_is_a_pause_while_other_jobs_are_at_work(launcher, slurm, clock):
    found = timed(launcher(array_parallelism=2), clock)
    found.ensure(100)
    number = 100
    for _ in range(60):
        found.at_work("100_0")
        queue(slurm, running_100_0="n1", failed_100_1="n2", **{f"failed_{job}": "n2" for job in range(101, number)})
        clock[0] += 10.0
        found.ensure(100)
        number = 100 + len(slurm.asked("sbatch"))
    assert 10 < len(slurm.asked("sbatch")) < 16
    assert "jobs in a row ended before a worker had a run" in found.words()


def test_crashes_of_jobs_whose_workers_had_runs_are_the_runs_affair(launcher, slurm, study):
    found = launcher(array_parallelism=1)
    for number in range(100, 106):
        found.ensure(5)
        found.at_work(str(number))
        ended(study, str(number), "killed", "crashed")
    found.ensure(5)
    assert len(slurm.asked("sbatch")) == 7


def test_while_other_jobs_are_at_work_failures_are_a_pause(launcher, slurm, study):
    found = launcher(array_parallelism=2)
    found.ensure(5)
    for job in ("100_1", "101", "102"):
        ended(study, job, "module: not found")
        queue(slurm, running_100_0="n1", **{f"failed_{job}": "n2"})
        found.ensure(5)
    assert "3 jobs in a row ended before a worker had a run; the last one, 102, said" in found.words()
    assert found.words().endswith("; the next attempt is in 5 s")
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
    assert re.search(r"sbatch: Socket timed out; the script is in .*; the next attempt is in 5 s$", found.words())


def test_refused_again_and_again_is_the_launchers_error(launcher, slurm, monkeypatch):
    monkeypatch.setattr("experiments.slurm_pauses._FIRST_PAUSE_S", 0.0)
    slurm.refuses("sbatch", "Invalid partition name specified")
    found = launcher()
    for _ in range(6):
        found.ensure(1)
    with pytest.raises(LauncherError, match=r"Invalid partition name specified; .*; 7 times in a row$"):
        found.ensure(1)


def test_refusals_do_not_end_it_while_jobs_are_at_work(launcher, slurm, clock):
    found = timed(launcher(array_parallelism=8), clock)
    queue(slurm, **{f"running_50_{task}": "n1" for task in range(7)})
    slurm.refuses("sbatch", "Batch job submission failed: Job violates accounting/QOS policy")
    asked_within(found, clock, 1200, step_s=20)
    assert 15 < len(slurm.asked("sbatch")) < 25
    assert re.match(r"jobs: 7 running \(7 on n1\); sbatch: .*QOS policy; the script is in ", found.words())


def test_nor_where_the_scheduler_has_stopped_answering(launcher, slurm, clock):
    found = timed(launcher(), clock)
    found.words()
    slurm.refuses("sbatch")
    slurm.refuses("squeue")
    asked_within(found, clock, 600, step_s=10)
    assert len(slurm.asked("sbatch")) == 1  # whether it was queued all the same is not known
    assert "the scheduler does not answer" in found.words()
    slurm.accepts_jobs()
    queue(slurm)
    asked_within(found, clock, 10)
    assert sum(sizes(slurm)) == 8


def test_one_that_never_answers_does_not_keep_a_sweep_from_its_jobs(launcher, slurm, clock):
    found = timed(launcher(), clock)
    slurm.refuses("squeue")
    slurm.refuses("sbatch")
    asked_within(found, clock, 600, step_s=10)
    assert len(slurm.asked("sbatch")) > 10
    slurm.accepts_jobs()
    asked_within(found, clock, 100, step_s=5)
    assert sum(sizes(slurm)) == 8


def test_where_the_site_has_a_limit_less_is_asked_for(launcher, slurm, clock):
    """sbatch refuses an array that would exceed it as a whole."""
    found = timed(launcher(array_parallelism=8), clock)
    slurm.runs(
        "sbatch",
        f'wanted=$(sed -n "s/^#SBATCH --array=0-\\([0-9]*\\)%.*/\\1/p" "$1")\nn=$(wc -l < {slurm.folder}/squeue.text)\n'
        "[ $((n + ${wanted:-0} + 1)) -le 5 ] || { echo 'sbatch: error: QOSMaxSubmitJobPerUserLimit' >&2; exit 1; }\n"
        f'cp "$1" {slurm.folder}/$n.script\n'
        f'for task in $(seq 0 ${{wanted:-0}}); do echo "$n"_"$task|PENDING||Priority|{TIME}|{TIME}"; done >> '
        f"{slurm.folder}/squeue.text\n"
        'echo "Submitted batch job $n"',
    )
    asked_within(found, clock, 120, step_s=5)
    assert sizes(slurm) == [4, 1]
    assert "QOSMaxSubmitJobPerUserLimit" in found.words()


@pytest.mark.parametrize("poll_s", [5.0, 60.0])
@pytest.mark.parametrize("end", ["echo 'sbatch: error: Socket timed out' >&2; exit 1", "exec sleep 60"])
def test_what_sbatch_queued_without_saying_so_is_not_submitted_again(launcher, slurm, clock, monkeypatch, poll_s, end):
    monkeypatch.setattr("slurm.submission.ask", partial(ask, timeout_s=1.0))
    found = timed(launcher(array_parallelism=8, poll_s=poll_s), clock)
    lines = "".join(f"100_{task}|PENDING||Priority|{TIME}|{TIME}\n" for task in range(8))
    slurm.runs(
        "sbatch", f'cp "$1" {slurm.folder}/100.script; cat > {slurm.folder}/squeue.text << end\n{lines}end\n{end}'
    )
    asked_within(found, clock, 200, step_s=5)
    assert len(slurm.asked("sbatch")) == 1
    assert found.words().startswith("jobs: 8 waiting (Priority), the longest for ")
    assert "sbatch" not in found.words()


def test_of_a_submission_refused_half_way_the_first_half_is_remembered(launcher, slurm, clock):
    slurm.accepts_jobs(first=100, max_array_size=4)
    slurm.takes_submissions(1)
    found = timed(launcher(array_parallelism=2, runs_per_job=1, poll_s=60.0), clock)
    found.ensure(6)
    assert found._submitted == {f"100_{task}" for task in range(4)}
    slurm.accepts_jobs(first=101, max_array_size=4)
    for _ in range(60):
        found.ensure(6)
        clock[0] += 1.0
    assert sizes(slurm) == [4]  # those that may run at once are there


def test_a_new_job_that_squeue_does_not_show_is_believed_for_two_minutes(launcher, slurm, clock):
    """A site's squeue may be cached."""
    found = timed(launcher(array_parallelism=2), clock)
    asked_within(found, clock, 119, step_s=7)
    assert sizes(slurm) == [2]
    assert found.job_state("100_0") == "pending"
    asked_within(found, clock, 4)
    assert sizes(slurm) == [2, 2]


def test_also_by_the_next_coordinator(launcher, slurm, study, clock):
    launcher(array_parallelism=2).ensure(100)
    found = timed(launcher(array_parallelism=2), clock)
    found.ensure(100)
    assert sizes(slurm) == [2]
    old = time.time() - 130
    for path in study.slurm.glob("*/*_submitted.pkl"):
        os.utime(path, (old, old), follow_symlinks=False)
    launcher(array_parallelism=2).ensure(100)
    assert sizes(slurm) == [2, 2]


def test_unless_it_says_itself_that_it_has_ended(launcher, slurm, study, clock):
    found = timed(launcher(array_parallelism=2), clock)
    found.ensure(100)
    ended(study, "100_0", "said", "started")
    ended(study, "100_1", "said", "left")
    found.ensure(100)
    assert sizes(slurm) == [2, 1]
    found.request_stop()
    assert slurm.asked("scancel") == ["101"]  # 100_0 runs, and will see that it is to stop
    ended(study, "100_0", "said", "left")
    assert found.wait(5.0)


def test_what_accounting_has_not_heard_of_is_not_submitted_again(launcher, slurm, clock):
    found = timed(launcher(array_parallelism=2), clock)
    asked_within(found, clock, 1)
    queue(slurm, running_100_0="n1", running_100_1="n1")
    asked_within(found, clock, 1)
    slurm.refuses("squeue", "Socket timed out")
    slurm.prints("sacct", "")
    asked_within(found, clock, 300, step_s=20)
    assert sizes(slurm) == [2]
    assert found.job_state("100_0") is None
    found.lost("100_0")
    asked_within(found, clock, 10)
    assert sizes(slurm) == [2, 1]


def test_where_only_accounting_answers_the_sweep_goes_on(launcher, slurm, clock):
    found = timed(launcher(array_parallelism=2), clock)
    slurm.refuses("squeue", "Access denied")
    slurm.prints("sacct", "")
    found.ensure(100)
    slurm.prints("sacct", f"100_0|RUNNING|n1|{TIME}|{TIME}\n100_1|CANCELLED by 7|n1|{TIME}|{TIME}\n")
    asked_within(found, clock, 2)
    assert sizes(slurm) == [2, 1]
    assert found.job_state("100_0") == "running"
    assert found.job_state("100_1") == "ended"


@pytest.mark.parametrize("reason", ["JobHeldAdmin", "launch failed requeued held", "JobHoldMaxRequeue"])
def test_a_job_that_slurm_holds_is_replaced_and_how_to_release_it_is_said(launcher, slurm, clock, reason):
    found = timed(launcher(array_parallelism=2), clock)
    asked_within(found, clock, 1)
    queue(slurm, running_100_0="n1", pending_100_1=reason)
    asked_within(found, clock, 1)
    assert sizes(slurm) == [2, 1]
    assert f"; 1 held ({reason}): scontrol release 100_1" in found.words()
    assert found.job_state("100_1") == "pending"
    queue(slurm, running_100_0="n1", running_100_1="n1", pending_101="Priority")
    asked_within(found, clock, 10)  # released
    assert sizes(slurm) == [2, 1]
    assert "held" not in found.words()


def test_one_that_its_user_holds_is_not(launcher, slurm, clock):
    found = timed(launcher(array_parallelism=2), clock)
    found.ensure(100)
    queue(slurm, running_100_0="n1", pending_100_1="JobHeldUser")
    asked_within(found, clock, 10)
    assert sizes(slurm) == [2]
    assert "1 held (JobHeldUser): scontrol release 100_1" in found.words()


def test_where_slurm_holds_job_after_job_it_ends_and_says_so(launcher, slurm, clock):
    found = timed(launcher(array_parallelism=1), clock)

    def look():
        found.ensure(5)
        queue(slurm, **{f"pending_{100 + number}": "JobHeldAdmin" for number in range(len(slurm.scripts()))})

    message = r"10 jobs in a row .* 109, is held \(JobHeldAdmin\): scontrol release 109; likely causes"
    with pytest.raises(LauncherError, match=message):
        repeat(look, clock, 1000)
    assert len(slurm.scripts()) == 10
    found.request_stop()
    assert slurm.asked("scancel") == [" ".join(str(100 + number) for number in range(10))]


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
