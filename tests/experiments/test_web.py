"""`vae-sweep ui`: both pages in a real browser, over a finished and a running sweep, and how they begin and end."""

import http.client
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import ExitStack, contextmanager, suppress
from wsgiref.util import setup_testing_defaults

import pytest
from support.browser import MISSING, PATIENCE_S, chromium
from support.engine import expected_rows, journal_lines, mlflow_rows, optuna_trials
from support.processes import ESTABLISHED, LISTENING, alive, command, environment, family, sockets
from support.tiny import TINY

from experiments import web
from experiments.dashboard import application, reading_only
from experiments.web_hosts import LOOPBACK, place
from vae_core.errors import UserError

COMMAND = [sys.executable, "-m", "experiments.cli"]
TIMEOUT_S = 180
EVERYWHERE = "0.0.0.0"  # noqa: S104 - what these tests are about
NAMES = ["beta=0.1 seed=0", "beta=100.0 seed=0"]
MISLEADING = {"MLFLOW_TRACKING_URI": "http://192.0.2.1", "MLFLOW_DISABLE_TELEMETRY": "false", "UVICORN_RELOAD": "1"}
STORES = ("mlflow.db", "optuna.journal")
needs_chromium = pytest.mark.skipif(MISSING is not None, reason=str(MISSING))


def vae_sweep(*arguments, check=0):
    result = subprocess.run(
        [*COMMAND, *map(str, arguments)], capture_output=True, text=True, timeout=TIMEOUT_S, stdin=subprocess.DEVNULL
    )
    assert result.returncode == check, f"exit {result.returncode}\n{result.stdout}\n{result.stderr}"
    return result


def wait_until(condition, what):
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        if condition():
            return
        time.sleep(0.05)
    raise AssertionError(f"waited too long for: {what}")


class Ui:
    """A running `vae-sweep ui` and what it has printed."""

    def __init__(self, root, log, *options):
        self.root, self.log = root, log
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                [*COMMAND, "ui", "--root", str(root), *options],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=os.environ | MISLEADING,
            )

    def ready(self):
        wait_until(lambda: "Ctrl-C" in self.printed or self.process.poll() is not None, "the addresses")
        assert self.process.poll() is None, self.printed
        return self

    @property
    def printed(self):
        return self.log.read_text()

    @property
    def addresses(self):
        return dict(re.findall(r"^(.+?): +(http\S+)$", self.printed, re.MULTILINE))

    @property
    def mlflow(self):
        return self.addresses["MLflow"]

    @property
    def optuna(self):
        return self.addresses["Optuna dashboard"]

    def end(self, number=signal.SIGTERM):
        self.process.send_signal(number)
        return self.process.wait(timeout=PATIENCE_S)


def run_tiny(folder):
    """Run the tiny sweep in the cheapest way: two epochs, no worker processes."""
    sweep = folder / "tiny.yaml"
    sweep.write_text(TINY.lstrip().replace("train.epochs: 3", "train.epochs: 2"))
    vae_sweep("run", sweep, "--root", folder / "runs", "--launcher", "inline")
    return folder / "runs"


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("web")
    os.environ["VAE_SWEEP_CACHE"] = str(tmp_path_factory.getbasetemp() / "data-cache")
    return run_tiny(folder)


@contextmanager
def taken(*ports):
    """Listen on the ports, where nobody else does."""
    with ExitStack() as stack:
        for port in ports:
            with suppress(OSError):
                stack.enter_context(socket.create_server(("127.0.0.1", port)))
        yield


def assert_everything_ends(ui, number):
    """Send the signal to `ui` alone, and see that its servers go with it."""
    pids = family(ui.process.pid)
    ports = [port for state, _, port, _ in sockets(pids) if state == LISTENING]
    assert len(pids) >= 5
    assert len(ports) == 2
    code = ui.end(number)
    assert code == (-signal.SIGKILL if number == signal.SIGKILL else 0), ui.printed
    wait_until(lambda: not any(alive(pid) for pid in pids), "the end of every process")
    for port in ports:
        socket.create_server(("127.0.0.1", port)).close()
    assert "Traceback" not in ui.printed


@pytest.fixture(scope="module")
def ui(root, tmp_path_factory):
    """One `ui` for the module, started while both usual ports are taken."""
    with taken(5000, 8080):
        running = Ui(root, tmp_path_factory.mktemp("ui") / "log").ready()
    yield running
    assert_everything_ends(running, signal.SIGTERM)


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with chromium(tmp_path_factory.mktemp("profile")) as running:
        yield running


def visit_mlflow(ui, browser):
    """Read what MLflow shows of the tiny study: its runs, one run's numbers, files and picture, and the parent."""
    listed = browser.open(ui.addresses["tiny in MLflow"], *NAMES, "5 matching runs", "test/elbo", "test/kl", "verdict")
    browser.click(NAMES[0])
    numbers = browser.read("val/elbo", "test/elbo", "Finished", "Parent run")
    parent = browser.link("tiny", towards="/runs/")
    browser.click("Artifacts")
    files = browser.read("images", "checkpoints", "config.yaml", "kl_spectrum.csv")
    browser.click("images")
    names = browser.read("reconstructions+step+2+")
    browser.click(re.search(r"reconstructions\+step\+2\+\S+\.png", names)[0])
    browser.wait(lambda: browser.widest_image() > 50, "the reconstructions as a picture")
    return listed, numbers, files, browser.open(parent, "Child runs", *NAMES, "Finished")


def visit_optuna(ui, browser):
    """Read what the dashboard shows of the tiny study: the list, its charts, and both trials."""
    listed = browser.open(ui.optuna, "tiny", "Direction: MAXIMIZE")
    charts = browser.open(ui.addresses["tiny in Optuna"], "History", "Hyperparameter Importance", "val/elbo")
    browser.open(ui.addresses["tiny in Optuna"] + "/note", "Does a tiny sweep come to its end?")
    address = ui.addresses["tiny in Optuna"] + "/trials?numbers="
    trials = [browser.open(f"{address}{number}", f"Trial {number} (trial_id=", "Value") for number in (0, 1)]
    return listed, charts, *trials


def state_of(text, number):
    """Return the state under a trial's name in the dashboard's list of trials."""
    return re.search(rf"Trial {number}\n(\w+)", text)[1]


def assert_pages_show_the_study(root, ui, browser):
    """Compare what both pages show of the tiny study with what its journals say."""
    listed, numbers, _, parent = visit_mlflow(ui, browser)
    assert "Does a tiny sweep come to its end?" in listed
    runs = {described(run): journal_lines(run) for run in (root / "tiny" / "runs").iterdir()}
    assert len(runs) == 4
    for name, lines in runs.items():
        assert name in listed
        assert name in parent
        assert lines[-1]["status"] == "done"
    [result] = [line for line in runs[NAMES[0]] if line["kind"] == "result"]
    assert str(result["metrics"]["test/elbo"]) in numbers
    assert result["verdict"]["because"] in numbers
    _, _, *pages = visit_optuna(ui, browser)
    for page, (number, state, params, value, curve) in zip(pages, optuna_trials(root, "tiny"), strict=True):
        assert f"Trial {number} (trial_id=" in page
        assert state_of(page, number).upper() == state == "COMPLETE"
        assert f"loss.beta {params['loss.beta']:g}" in page
        assert str(value) in page
        assert all(f"{step} {measured}" in page for step, measured in curve.items())


@needs_chromium
def test_both_pages_show_a_finished_study_and_only_read(root, ui, browser):
    before = {name: (root / name).read_bytes() for name in STORES}
    assert_pages_show_the_study(root, ui, browser)
    asked = browser.asked()
    assert len(asked) > 20
    assert [url for _, url in asked if not url.startswith((ui.mlflow, ui.optuna))] == []
    assert {name: (root / name).read_bytes() for name in STORES} == before
    assert not list(root.glob("optuna.journal.lock*"))


def described(run):
    info = json.loads((run / "run.json").read_text())
    return f"{info['cell'].removeprefix('loss.')} seed={info['seed']}"


@needs_chromium
def test_the_dashboards_buttons_do_not_reach_the_journal(root, ui, browser):
    before = (root / "optuna.journal").read_bytes()
    browser.open(ui.optuna, "tiny")
    browser.press("delete study")
    browser.read("Are you sure")
    browser.click("Yes")
    browser.read("Failed to delete study")
    assert (root / "optuna.journal").read_bytes() == before


def held_by_a_worker(study):
    """Return (pid, run) of a worker that has finished an epoch of a run, or None."""
    for path in (study / "claimed").glob("*.json"):
        run = study / "runs" / path.name.split(".")[0]
        if any(line["kind"] == "epoch" for line in journal_lines(run)):
            return json.loads(path.read_text().splitlines()[1])["owner"]["pid"], run
    return None


@contextmanager
def one_worker_suspended(study):
    """Suspend the first worker that is in the middle of a run, and yield that run."""
    wait_until(lambda: held_by_a_worker(study), "a first epoch")
    pid, run = held_by_a_worker(study)
    os.kill(pid, signal.SIGSTOP)
    try:
        yield run
    finally:
        os.kill(pid, signal.SIGCONT)


@needs_chromium
def test_both_pages_show_a_sweep_that_is_running_and_it_ends_undisturbed(root, ui, browser):
    options = ["--root", root, "--study", "live", "--workers", 2, "--set", "train.epochs=12", "--set", "seeds=1"]
    process = subprocess.Popen(
        [*COMMAND, "run", str(root.parent / "tiny.yaml"), *map(str, options)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        with one_worker_suspended(root / "live") as run:
            trial = json.loads((run / "run.json").read_text())["trial"]
            browser.open(ui.mlflow, "Recent Experiments", "live")
            browser.open(browser.link("live", towards="/experiments/") + "/runs?orderByKey=params.seed", described(run))
            browser.click(described(run))
            browser.read("Status", "Running", "Parent run")
            browser.open(browser.link("live", towards="/runs/"), "Child runs", described(run), "Running")
            browser.open(ui.optuna, "live")
            browser.click("1. live")
            browser.read("History")
            trials = f"{browser.driver.current_url}/trials?numbers={trial}"
            page = browser.open(trials, f"Trial {trial} (trial_id=")
            assert state_of(page, trial) == "Running"
            assert process.poll() is None
        output, _ = process.communicate(timeout=TIMEOUT_S)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 0, output
    assert "locked" not in output
    assert "to complete MLflow later" not in output
    rows = {row: count for row, count in mlflow_rows(root).items() if (root / "live" / "runs" / row[0]).exists()}
    assert set(rows) == expected_rows(root / "live")
    assert set(rows.values()) == {1}
    page = browser.open(trials, f"Trial {trial} (trial_id=", "Best Trial")
    assert {state_of(page, number) for number in (0, 1)} == {"Complete"}


@needs_chromium
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_deleted_store_ends_the_pages_and_rebuilt_ones_show_the_same(root, tmp_path, browser):
    shutil.copytree(root, tmp_path / "runs")
    ui = Ui(tmp_path / "runs", tmp_path / "before").ready()
    for name in STORES:
        (tmp_path / "runs" / name).unlink()
    shutil.rmtree(tmp_path / "runs" / "mlartifacts")
    assert ui.process.wait(PATIENCE_S) == 1  # rather than to show what is gone
    assert "were replaced; to see the new ones, start this again" in ui.printed
    vae_sweep("rebuild", "tiny", "--root", tmp_path / "runs")
    ui = Ui(tmp_path / "runs", tmp_path / "after").ready()
    try:
        assert_pages_show_the_study(tmp_path / "runs", ui, browser)
    finally:
        ui.end()


def test_both_servers_listen_on_loopback_alone_and_call_nobody(ui):
    pids = family(ui.process.pid)
    assert {"mlflow ui", "experiments.dashboard"} == {
        name for name in ("mlflow ui", "experiments.dashboard", "huey") for pid in pids if name in command(pid)
    }
    held = sockets(pids)
    listening = {(address, port) for state, address, port, _ in held if state == LISTENING}
    assert {f"http://{address}:{port}" for address, port in listening} == {ui.mlflow, ui.optuna}
    assert {address for address, _ in listening} == {"127.0.0.1"}
    assert {remote for state, _, _, remote in held if state == ESTABLISHED} <= {"127.0.0.1"}
    for pid in pids[1:]:
        settings = environment(pid)
        assert settings["MLFLOW_DISABLE_TELEMETRY"] == "true"
        assert "192.0.2.1" not in " ".join(settings.values())


def test_usual_ports_that_are_taken_give_way_to_free_ones(ui):
    assert {int(address.rsplit(":", 1)[1]) for address in (ui.mlflow, ui.optuna)}.isdisjoint({5000, 8080})


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_signal_ends_both_servers_and_frees_the_ports(root, tmp_path, number):
    assert_everything_ends(Ui(root, tmp_path / "log").ready(), number)


def test_a_signal_during_the_start_ends_it_too(root, tmp_path):
    ui = Ui(root, tmp_path / "log")
    wait_until(lambda: len(family(ui.process.pid)) >= 5, "both guards and their servers")
    pids = family(ui.process.pid)
    assert ui.end(signal.SIGINT) == 0
    wait_until(lambda: not any(alive(pid) for pid in pids), "the end of every process")
    assert ui.printed == ""


GUARDED = """
import os, signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])  # ignores SIGTERM as well
print(os.getpid(), child.pid, flush=True)
time.sleep(600)
"""


def guarded(tmp_path):
    """Start a process that starts a guard over a stubborn command; return it and the pids that are to end."""
    starter = (
        "import subprocess, sys, time; from experiments import guard; "
        "subprocess.Popen([sys.executable, '-c', 'from experiments import guard; guard.GRACE_S = 0.3; guard.main()', "
        "*sys.argv[1:]], stdin=subprocess.PIPE); time.sleep(60)"
    )
    command = [sys.executable, "-c", starter, sys.executable, "-c", GUARDED]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=tmp_path)
    return process, [int(word) for word in process.stdout.readline().split()]


def test_a_guarded_command_and_its_children_end_with_a_starter_that_was_killed(tmp_path):
    starter, pids = guarded(tmp_path)
    assert all(alive(pid) for pid in pids)
    assert len(pids) == 2
    starter.kill()
    starter.wait()
    starter.stdout.close()
    try:
        wait_until(lambda: not any(alive(pid) for pid in pids), "the end of the stubborn command and its child")
    finally:
        for pid in filter(alive, pids):
            os.kill(pid, signal.SIGKILL)


def test_a_port_that_was_asked_for_and_is_taken_is_refused(root):
    with socket.create_server(("127.0.0.1", 0)) as holder:
        port = holder.getsockname()[1]
        stderr = vae_sweep("ui", "--root", root, "--mlflow-port", port, check=2).stderr
    assert f"--mlflow-port {port}: cannot be used (Address already in use); choose another" in stderr
    assert "Traceback" not in stderr


def test_one_port_for_both_is_refused(root):
    with pytest.raises(UserError, match="both servers cannot listen on one port"), web.web_pages(root, 5999, 5999):
        pass


def test_a_root_without_studies_and_one_without_stores_are_refused(tmp_path):
    stderr = vae_sweep("ui", "--root", tmp_path, check=2).stderr
    assert "holds no study yet; run one first" in stderr
    assert "Traceback" not in stderr
    (tmp_path / "beta").mkdir()
    (tmp_path / "beta" / "sweep.yaml").touch()
    with pytest.raises(UserError, match=r"mlflow\.db and optuna\.journal missing.*vae-sweep rebuild beta --root"):
        web.web_pages(tmp_path).__enter__()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["beta"]


def test_a_server_that_dies_at_its_start_ends_the_command_with_its_last_words(root, tmp_path):
    shutil.copy(root / "optuna.journal", tmp_path)
    (tmp_path / "mlflow.db").write_text("not a database at all")
    stderr = vae_sweep("ui", "--root", tmp_path, check=1).stderr
    assert stderr.startswith("error: MLflow ended at its start")
    assert "file is not a database" in stderr
    assert "Traceback" not in stderr


def ask(app, method, path, host="127.0.0.1:8080"):
    """Send a request to a WSGI application; return its status and its JSON."""
    environ = {"REQUEST_METHOD": method, "PATH_INFO": path, "HTTP_HOST": host}
    setup_testing_defaults(environ)
    statuses = []
    body = b"".join(app(environ, lambda status, *_: statuses.append(status)))
    return statuses[0], json.loads(body)


def test_the_dashboard_reads_past_a_line_that_is_being_written(root, tmp_path):
    journal = tmp_path / "optuna.journal"
    lines = (root / "optuna.journal").read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"".join(lines[:-1]) + lines[-1][:20])
    app = application(journal, ["127.0.0.1", "[::1]"])
    before = journal.read_bytes()
    status, answer = ask(app, "GET", "/api/studies")
    assert status == "200 OK"
    assert "tiny" in [study["study_name"] for study in answer["study_summaries"]]
    with journal.open("ab") as file:
        file.write(lines[-1][20:])
    assert ask(app, "GET", "/api/studies/0")[0] == "200 OK"
    status, answer = ask(app, "DELETE", "/api/studies/0")
    assert status == "403 Forbidden"
    assert "only reads" in answer["reason"]
    assert journal.read_bytes() == before + lines[-1][20:]
    assert [path.name for path in tmp_path.iterdir()] == ["optuna.journal"]


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.1:8080", "[::1]:9", "[::1]"])
def test_the_dashboard_answers_under_its_own_names_with_any_port(host):
    app = reading_only(lambda _, start: start("200 OK", []) or [b"{}"], ["127.0.0.1", "[::1]"])
    assert ask(app, "GET", "/", host) == ("200 OK", {})


@pytest.mark.parametrize("host", ["", "evil.example", "evil.example:8080", "127.0.0.1.evil.example", "127.0.0.1:x"])
def test_the_dashboard_refuses_names_that_are_not_its_own(host):
    app = reading_only(lambda _, start: start("200 OK", []) or [b"{}"], ["127.0.0.1", "[::1]"])
    status, answer = ask(app, "GET", "/", host)
    assert status == "403 Forbidden"
    assert "--allowed-hosts" in answer["reason"]


def test_loopback_is_the_default_and_has_the_usual_names():
    at = place(LOOPBACK)
    assert at.is_loopback
    assert set(at.names) == {"127.0.0.1", "localhost", "[::1]"}
    assert at.url(5000) == at.own_url(5000) == "http://127.0.0.1:5000"
    assert place("localhost").is_loopback


def test_all_addresses_are_shown_by_one_of_this_machines_and_asked_on_loopback():
    at = place(EVERYWHERE, ["proxy.example"])
    assert not at.is_loopback
    assert {socket.gethostname(), "proxy.example", "localhost"} <= set(at.names)
    assert at.own_url(5000) == "http://127.0.0.1:5000"
    assert at.url(5000) not in ("http://0.0.0.0:5000", "http://127.0.0.1:5000")


@pytest.mark.parametrize("host", ["192.0.2.1", "no-such-host.invalid", "not a host"])
def test_a_host_that_is_not_this_machine_is_refused(root, host):
    with pytest.raises(UserError, match=f"--host {host}: cannot be listened on .*0.0.0.0 for all its addresses"):
        place(host)
    assert "cannot be listened on" in vae_sweep("ui", "--root", root, "--host", "192.0.2.1", check=2).stderr


def status_of(port, host, path="/api/studies", origin=None, body=None):
    """Return the status that a server on this machine answers to a browser that knows it as `host`."""
    connection = http.client.HTTPConnection(LOOPBACK, port, timeout=60)
    headers = {"Host": host, "Content-Type": "application/json"} | ({"Origin": origin} if origin else {})
    connection.request("POST" if body else "GET", path, body, headers)
    status = connection.getresponse().status
    connection.close()
    return status


def search_status(port, host, origin=None):
    """Return the status of MLflow's answer when a page under the name `host` searches for runs."""
    path, body = "/ajax-api/2.0/mlflow/runs/search", json.dumps({"experiment_ids": ["1"]})
    return status_of(port, host, path, origin, body)


@pytest.mark.slow
def test_on_all_addresses_a_warning_is_shown_and_own_names_work_and_others_do_not(root, tmp_path):
    ui = Ui(root, tmp_path / "log", "--host", EVERYWHERE, "--allowed-hosts", "proxy.example").ready()
    try:
        assert "Neither page has a password" in ui.printed
        assert "ssh -L" in ui.printed
        held = sockets(family(ui.process.pid))
        assert {address for state, address, _, _ in held if state == LISTENING} == {EVERYWHERE}
        mlflow, optuna = (int(address.rsplit(":", 1)[1]) for address in (ui.mlflow, ui.optuna))
        for name in (socket.gethostname(), "proxy.example", LOOPBACK):
            assert search_status(mlflow, f"{name}:{mlflow}", f"http://{name}:{mlflow}") == 200, name
            assert status_of(optuna, f"{name}:{optuna}") == 200, name
        assert search_status(mlflow, "proxy.example", "https://proxy.example") == 200
        assert search_status(mlflow, "evil.example") == 403
        assert search_status(mlflow, f"{LOOPBACK}:{mlflow}", "http://evil.example") == 403
        assert status_of(optuna, "evil.example") == 403
    finally:
        ui.end()


def test_where_a_tracking_server_of_the_users_has_the_runs_only_the_dashboard_is_started(root, tmp_path, monkeypatch):
    monkeypatch.setenv("VAE_SWEEP_MLFLOW_URI", "http://me:secret@tracking.example:5000")
    shutil.copytree(root / "tiny", tmp_path / "runs" / "tiny")
    shutil.copy(root / "optuna.journal", tmp_path / "runs")  # and no mlflow.db
    ui = Ui(tmp_path / "runs", tmp_path / "log").ready()
    try:
        assert not any("mlflow" in command(pid) for pid in family(ui.process.pid))
        assert ui.mlflow.endswith("@tracking.example:5000")
        assert "secret" not in ui.printed
        assert status_of(int(ui.optuna.rsplit(":", 1)[1]), LOOPBACK) == 200
    finally:
        assert ui.end() == 0


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mlflow ui", "experiments.dashboard"])
def test_a_server_that_dies_closes_the_other_and_says_so(root, tmp_path, name):
    ui = Ui(root, tmp_path / "log").ready()
    pids = family(ui.process.pid)
    [victim] = [pid for pid in pids if name in command(pid) and "experiments.guard" not in command(pid)][:1]
    os.kill(victim, signal.SIGKILL)
    assert ui.process.wait(PATIENCE_S) == 1
    assert f"error: {'MLflow' if name == 'mlflow ui' else 'Optuna dashboard'} ended; its last words:" in ui.printed
    assert "Traceback" not in ui.printed
    wait_until(lambda: not any(alive(pid) for pid in pids), "the end of every process")
