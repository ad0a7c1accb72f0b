import json
import os
import stat

import pytest

from tracking.files import read_json, remove_temporaries, write_atomic, write_json


def test_content_is_written_whole_and_readable_by_others(tmp_path):
    write_atomic(tmp_path / "a", "ä")
    assert (tmp_path / "a").read_bytes() == "ä".encode()
    write_atomic(tmp_path / "a", b"\x00")
    assert (tmp_path / "a").read_bytes() == b"\x00"
    umask = os.umask(0)
    os.umask(umask)
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o666 & ~umask


def test_a_failed_write_leaves_the_old_content_and_no_litter(tmp_path, monkeypatch):
    write_atomic(tmp_path / "a", "old")

    def refuse(descriptor):
        raise OSError("disk full")

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(OSError, match="disk full"):
        write_atomic(tmp_path / "a", "new")
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    assert (tmp_path / "a").read_text() == "old"


def test_the_file_is_durable_before_it_has_its_name(tmp_path, monkeypatch):
    seen = []
    real = os.fsync

    def watch(descriptor):
        real(descriptor)
        seen.append(sorted(path.name for path in tmp_path.iterdir()))

    monkeypatch.setattr(os, "fsync", watch)
    write_atomic(tmp_path / "a", "new")
    assert len(seen) == 2
    assert seen[0] != ["a"]
    assert seen[1] == ["a"]


def test_json_comes_back_equal_and_refuses_nan(tmp_path):
    value = {"a": [1, 2.5, None, "x"]}
    write_json(tmp_path / "a.json", value)
    assert read_json(tmp_path / "a.json") == json.loads((tmp_path / "a.json").read_text()) == value
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "a.json", {"a": float("nan")})
    assert read_json(tmp_path / "a.json") == value


def test_only_temporaries_are_removed(tmp_path):
    for name in (".a.0123.tmp", "a", ".hidden", "b.tmp"):
        (tmp_path / name).touch()
    remove_temporaries(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"a", ".hidden", "b.tmp"}
