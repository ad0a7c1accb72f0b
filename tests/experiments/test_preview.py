"""The contact sheet of augmentations and the command that draws it."""

import pytest
from PIL import Image
from rich.console import Console

from experiments.data_commands import preview
from experiments.preview import _rows
from vae_core.config import DataConfig
from vae_core.data import prepare
from vae_core.data.augment import AUGMENTATIONS
from vae_core.errors import UserError
from vae_core.schema.augment import AugmentConfig

SMALL = ["data.count=12"]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("VAE_SWEEP_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def dataset():
    return prepare(DataConfig(count=12, width=32, max_height=64))


def test_there_is_a_visible_row_for_every_augmentation_and_one_for_the_config(dataset):
    rows = list(_rows(AugmentConfig(shift=0.2, erase=1.0), dataset, int(dataset.splits["train"][0])))
    assert len(rows) == len(AUGMENTATIONS) + 2
    for text, (original, *variants) in rows:
        assert "data.augment." in text
        assert len(variants) == 7
        changed = [one for one in variants if one.shape != original.shape or not one.equal(original)]
        assert len(changed) >= 2, text
        assert any(not one.equal(changed[0]) for one in changed) or "flip" in text
    for (text, _), (name, entry) in zip(rows[1:-1], AUGMENTATIONS.items(), strict=True):
        assert text.startswith(name)
        assert f"data.augment.{entry.switch}=" in text
    assert rows[-1][0] == "this config: data.augment.shift=0.2  data.augment.erase=1.0"


def test_the_command_writes_a_picture_and_says_where_and_what_next(tmp_path, capsys):
    target = tmp_path / "sheet.png"
    preview("wireframes-tiny", SMALL, target, Console(width=120))
    with Image.open(target) as sheet:
        assert sheet.height > 100 * len(AUGMENTATIONS)
    said = capsys.readouterr().out
    assert f"contact sheet: {target}" in said
    assert "vae-sweep data preview wireframes-tiny --set data.augment." in said


def test_a_picture_that_cannot_be_written_and_a_wrong_field_are_the_users_mistakes(tmp_path):
    with pytest.raises(UserError, match=r"-o .*missing/sheet.png: cannot be written \(No such file"):
        preview("wireframes-tiny", SMALL, tmp_path / "missing" / "sheet.png", Console())
    with pytest.raises(UserError, match=r"data\.augment\.flips: no such field"):
        preview("wireframes-tiny", ["data.augment.flips=1.0"], tmp_path / "sheet.png", Console())
