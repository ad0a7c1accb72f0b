import io
import re

from mlflow import MlflowClient
from PIL import Image

from tracking.images import image_name, same_picture, thumbnail, thumbnail_name
from tracking.mlflow_experiments import StudyIdentity
from tracking.mlflow_sink import MlflowSink

UUID = r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"


def write_picture(path, size=(300, 150), color="teal"):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, color).save(path, "PNG")


def logged_picture(run, step, color="teal"):
    write_picture(run.attempt.artifacts / "figures" / f"prior_samples_{step:04d}.png", color=color)
    name = f"artifacts/figures/prior_samples_{step:04d}.png"
    return run.journal.append("figures", epoch=step, files=[name])


def pictures(store, run):
    return {name for name in store.files(store.run_id(run)) if name.startswith("images/")}


def forward(store, run):
    sink = MlflowSink(store.uri, store.artifacts, StudyIdentity("beta"), "?")
    assert sink.forward(run.directory, run.info, final_status="FINISHED").problem is None


def test_names_and_tag_are_those_that_mlflow_gives_its_own_pictures(store, written_run, write_run, monkeypatch):
    monkeypatch.setattr("tracking.journal.time.time_ns", lambda: 1_700_000_000_123 * 1_000_000)
    written_run.open(0)
    logged_picture(written_run, 5)
    written_run.end()
    forward(store, written_run)
    client, other = MlflowClient(tracking_uri=store.uri), write_run("other")
    other.open(0)
    forward(store, other)
    picture = Image.new("RGB", (300, 150))
    client.log_image(store.run_id(other), picture, key="prior_samples", step=5, timestamp=1_700_000_000_123)
    ours = {re.sub(UUID, "UUID", name) for name in pictures(store, written_run)}
    assert ours == {re.sub(UUID, "UUID", name) for name in pictures(store, other)}
    tags = [store.tags(store.run_id(run))["mlflow.loggedImages"] for run in (written_run, other)]
    assert tags == ["True", "True"]


def test_a_picture_drawn_again_by_a_later_attempt_takes_the_place_of_the_first(store, written_run):
    written_run.open(0)
    line = written_run.epoch(1)
    written_run.checkpoint(1, line.n)
    logged_picture(written_run, 1)
    written_run.end("failed", "infrastructure", "lost")
    forward(store, written_run)
    first = pictures(store, written_run)
    written_run.open(1, continues=(0, line.n))
    logged_picture(written_run, 1, color="red")
    logged_picture(written_run, 2)
    written_run.end()
    forward(store, written_run)
    assert first < pictures(store, written_run)
    assert len(pictures(store, written_run)) == 4


def test_the_thumbnail_fits_into_256_pixels(tmp_path):
    write_picture(tmp_path / "wide.png", (1000, 100))
    small = Image.open(io.BytesIO(thumbnail(tmp_path / "wide.png")))
    assert (small.format, small.size) == ("WEBP", (256, 26))


def test_a_file_that_is_no_picture_has_no_thumbnail(tmp_path):
    (tmp_path / "torn.png").write_bytes(b"\x89PN")
    assert thumbnail(tmp_path / "torn.png") is None


def test_key_and_step_name_a_picture():
    first, again = (image_name("run", "a/b c", 7, time_ms) for time_ms in (1, 2))
    assert first != again
    assert same_picture(first) == same_picture(again)
    assert same_picture(first) != same_picture(thumbnail_name(first))
    assert same_picture(first) != same_picture(image_name("run", "a/b c", 8, 1))
    assert same_picture("figures/a.png") is None
