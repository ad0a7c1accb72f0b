"""The ledger of trials and the Optuna study that is a view of it."""

import optuna
import pytest
from optuna_dashboard import get_note

from experiments.ledger import Ledger, read_trials
from experiments.optuna_view import OptunaView, open_storage
from experiments.sweep import load_sweep
from tracking.run_directory import StudyDirectory


@pytest.fixture
def study(tmp_path):
    study = StudyDirectory(tmp_path / "study")
    study.create()
    return study


def ask(ledger, *values):
    for value in values:
        ledger.ask({"loss.beta": value}, f"loss.beta={value}", [(f"run{value}", 0), (f"other{value}", 1)])


def trials_of(storage, name="tiny"):
    study = optuna.load_study(study_name=name, storage=storage)
    return [
        (trial.number, trial.state.name, trial.params, trial.value, trial.intermediate_values)
        for trial in study.get_trials()
    ]


def test_the_ledger_is_read_back_and_ignores_second_words(study):
    ledger = Ledger(study)
    ask(ledger, 0.1, 100.0)
    ledger.report(0, 1, -5.0)
    ledger.report(0, 1, -4.0)
    ledger.tell(0, "COMPLETE", -3.0)
    ledger.tell(0, "FAIL", None)
    ledger.close()
    first, second = read_trials(study)
    assert (first.reports, first.state, first.value) == ({1: -5.0}, "COMPLETE", -3.0)
    assert (second.state, second.params, second.runs) == (
        None,
        {"loss.beta": 100.0},
        [("run100.0", 0), ("other100.0", 1)],
    )
    assert Ledger(study).trials == [first, second]


@pytest.fixture
def sweep(write_sweep):
    return load_sweep(str(write_sweep()), [])


def test_the_view_shows_the_ledger_and_follows_it(study, sweep, tmp_path):
    ledger = Ledger(study)
    ask(ledger, 0.1)
    view = OptunaView(open_storage(tmp_path / "optuna.journal"), sweep, ledger.trials)
    ask(ledger, 100.0)
    ledger.report(0, 1, -5.0)
    ledger.tell(0, "COMPLETE", -3.0)
    view.sync()
    view.sync()
    ledger.tell(1, "FAIL", None)
    view.sync()
    assert trials_of(open_storage(tmp_path / "optuna.journal")) == [
        (0, "COMPLETE", {"loss.beta": 0.1}, -3.0, {1: -5.0}),
        (1, "FAIL", {"loss.beta": 100.0}, None, {}),
    ]


def test_the_dashboard_shows_the_question_as_the_studys_note(study, sweep, write_sweep, tmp_path):
    journal = tmp_path / "optuna.journal"
    other = write_sweep().read_text().replace(sweep.question, "Why?")
    for asked in (sweep, sweep, load_sweep(str(write_sweep(other)), [])):
        OptunaView(open_storage(journal), asked, Ledger(study).trials)
        [name] = optuna.get_all_study_names(open_storage(journal))
        assert get_note(optuna.load_study(study_name=name, storage=open_storage(journal))) == asked.question


def test_a_deleted_storage_is_made_anew_the_same(study, sweep, tmp_path):
    ledger = Ledger(study)
    ask(ledger, 0.1, 100.0)
    ledger.report(1, 2, 7.0)
    ledger.tell(1, "COMPLETE", 8.0)
    journal = tmp_path / "optuna.journal"
    OptunaView(open_storage(journal), sweep, ledger.trials)
    before = trials_of(open_storage(journal))
    journal.unlink()
    OptunaView(open_storage(journal), sweep, ledger.trials)
    assert trials_of(open_storage(journal)) == before


def test_a_trial_that_was_proposed_but_never_recorded_is_forgotten(study, write_sweep, tmp_path):
    options = ["sampler=tpe", "trials=5", "space.loss.beta={low: 0.1, high: 10, log: true}"]
    sweep = load_sweep(str(write_sweep()), options)
    ledger = Ledger(study)
    storage = open_storage(tmp_path / "optuna.journal")
    first = OptunaView(storage, sweep, ledger.trials)
    lost = first.propose()  # killed here: the ledger knows nothing of it
    again = OptunaView(open_storage(tmp_path / "optuna.journal"), sweep, ledger.trials)
    assert trials_of(open_storage(tmp_path / "optuna.journal")) == []
    assert again.propose() == lost  # and the sampler, keyed by the trial's number, proposes the same


def test_proposals_stay_in_range_differ_and_use_what_was_told(study, write_sweep, tmp_path):
    options = ["sampler=tpe", "trials=40", "space.loss.beta={low: 0.1, high: 10, log: true}"]
    sweep = load_sweep(str(write_sweep()), options)
    ledger = Ledger(study)
    view = OptunaView(open_storage(tmp_path / "optuna.journal"), sweep, ledger.trials)
    values = []
    for number in range(40):
        params = view.propose()
        ledger.ask(params, "cell", [])
        values.append(params["loss.beta"])
        ledger.tell(number, "COMPLETE", -abs(params["loss.beta"] - 3.0))
        view.sync()
    assert all(0.1 <= value <= 10 for value in values)
    assert len(set(values)) == 40
    near = sum(2 < value < 4 for value in values[-20:])
    assert near >= 8  # of a log-uniform draw 15% fall there, 3 of 20


def test_a_torn_last_line_is_cut_before_the_next_write(study, sweep, tmp_path):
    ledger = Ledger(study)
    ask(ledger, 0.1)
    journal = tmp_path / "optuna.journal"
    OptunaView(open_storage(journal), sweep, ledger.trials)
    with journal.open("ab") as file:
        file.write(b'{"op_code": 5, "worker_i')
    ask(ledger, 100.0)
    OptunaView(open_storage(journal), sweep, ledger.trials)
    assert [number for number, *_ in trials_of(open_storage(journal))] == [0, 1]


def test_lists_of_numbers_are_numeric_axes_and_words_are_choices(study, write_sweep, tmp_path):
    sweep = load_sweep(
        str(write_sweep()), ["space.model.block=[resnet, plain]", "space.model.spp_levels=[[1], [1, 2]]"]
    )
    ledger = Ledger(study)
    ledger.ask(sweep.grid()[1], "cell", [])
    storage = open_storage(tmp_path / "optuna.journal")
    OptunaView(storage, sweep, ledger.trials)
    [trial] = optuna.load_study(study_name="tiny", storage=storage).get_trials()
    assert isinstance(trial.distributions["loss.beta"], optuna.distributions.FloatDistribution)
    assert trial.distributions["loss.beta"].log
    assert trial.params["model.block"] == "resnet"
    assert trial.params["model.spp_levels"] == "[1, 2]"


def test_cells_added_later_widen_the_axis(study, sweep, write_sweep, tmp_path):
    ledger = Ledger(study)
    ask(ledger, 0.1)
    ledger.tell(0, "COMPLETE", 1.0)
    OptunaView(open_storage(tmp_path / "o.journal"), sweep, ledger.trials)
    wider = load_sweep(str(write_sweep()), ["space.loss.beta=[0.1, 5000.0]"])
    ask(ledger, 5000.0)
    OptunaView(open_storage(tmp_path / "o.journal"), wider, ledger.trials)
    assert [params for _, _, params, _, _ in trials_of(open_storage(tmp_path / "o.journal"))] == [
        {"loss.beta": 0.1},
        {"loss.beta": 5000.0},
    ]
