import json
import os
import time
import zlib

import pytest

from tracking.journal import JournalTail, JournalWriter, read_journal


@pytest.fixture
def path(tmp_path):
    return tmp_path / "journal.jsonl"


def write_three(path):
    with JournalWriter(path) as journal:
        return [
            journal.append("attempt", attempt=0, continues=None),
            journal.append("epoch", epoch=1, metrics={"val/elbo": -1.5}, note='quotes ", "crc": "00000000"} and ä\n'),
            journal.append("end", status="done"),
        ]


def test_lines_come_back_as_they_were_appended(path):
    before = time.time_ns() // 1_000_000
    lines = write_three(path)
    assert read_journal(path) == lines
    assert [(line.n, line.kind) for line in lines] == [(0, "attempt"), (1, "epoch"), (2, "end")]
    assert before <= lines[0].time_ms <= lines[2].time_ms <= time.time_ns() // 1_000_000


def test_every_number_and_every_file_name_comes_back_to_the_bit(path):
    numbers = [0.1, 1 / 3, 5e-324, 1.7976931348623157e308, 2.2250738585072014e-308, -0.0, 1234.56789, 2**63 + 1]
    undecodable = b"caf\xe9".decode(errors="surrogateescape")
    with JournalWriter(path) as journal:
        journal.append("epoch", numbers=numbers, name=undecodable, text="\U0001f600")
        journal.append("end")
    first, last = read_journal(path)

    assert [repr(number) for number in first.fields["numbers"]] == [repr(number) for number in numbers]
    assert (first.fields["name"], first.fields["text"]) == (undecodable, "\U0001f600")
    assert last.kind == "end"


def test_a_line_is_the_documented_json(path):
    write_three(path)
    for n, text in enumerate(path.read_text().splitlines()):
        value = json.loads(text)
        assert list(value)[:3] == ["n", "time_ms", "kind"]
        assert value["n"] == n
        crc = value.pop("crc")
        assert crc == f"{zlib.crc32(json.dumps(value).encode()):08x}"


def test_a_journal_torn_at_any_byte_reads_as_its_whole_lines_and_can_be_continued(path):
    lines = write_three(path)
    data = path.read_bytes()
    ends = [index + 1 for index, byte in enumerate(data) if byte == ord("\n")]
    for cut in range(len(data) + 1):
        whole = sum(end <= cut for end in ends)
        path.write_bytes(data[:cut])
        assert read_journal(path) == lines[:whole]
        if cut % 7 == 0:
            with JournalWriter(path) as journal:
                added = journal.append("added", value=cut)
            assert added.n == whole
            assert read_journal(path) == [*lines[:whole], added]


def test_a_damaged_byte_ends_the_valid_lines(path):
    lines = write_three(path)
    data = path.read_bytes()
    ends = [index + 1 for index, byte in enumerate(data) if byte == ord("\n")]
    for place in range(0, len(data), 3):
        path.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
        assert read_journal(path) == lines[: sum(end <= place for end in ends)]


def test_a_line_out_of_sequence_ends_the_valid_lines(path):
    lines = write_three(path)
    first, second, third = path.read_bytes().splitlines(keepends=True)
    for content, expected in (
        (first + third, lines[:1]),
        (second, []),
        (first + first, lines[:1]),
        (first + second + second + third, lines[:2]),
    ):
        path.write_bytes(content)
        assert read_journal(path) == expected


def test_a_writer_cuts_off_what_follows_the_last_valid_line(path):
    lines = write_three(path)
    first, _, third = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(first + b"damaged\n" + third)
    with JournalWriter(path) as journal:
        assert path.read_bytes() == first
        added = journal.append("added")
    assert read_journal(path) == [lines[0], added]


def test_a_missing_journal_has_no_lines(path):
    assert read_journal(path) == []
    assert JournalTail(path).poll() == []


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_numbers_that_are_not_finite_are_refused_by_name(path, bad):
    with JournalWriter(path) as journal:
        journal.append("attempt")
        with pytest.raises(ValueError, match=r"metrics\.val/kl: a journal holds finite numbers only"):
            journal.append("epoch", metrics={"val/elbo": 1.0, "val/kl": bad})
        with pytest.raises(ValueError, match=r"vectors\.kl\[1\]"):
            journal.append("epoch", vectors={"kl": [1.0, bad]})
    assert len(read_journal(path)) == 1


def test_a_field_cannot_take_the_name_of_the_lines_own(path):
    with JournalWriter(path) as journal, pytest.raises(ValueError, match="cannot carry a field 'crc'"):
        journal.append("epoch", crc="1")


def test_every_line_is_on_disk_when_append_returns(path, monkeypatch):
    synced = []
    real = os.fsync
    with JournalWriter(path) as journal:
        monkeypatch.setattr(os, "fsync", lambda descriptor: (synced.append(path.stat().st_size), real(descriptor)))
        journal.append("epoch")
        assert synced == [path.stat().st_size]


def test_a_refused_line_does_not_swallow_the_next_one(path, monkeypatch):
    with JournalWriter(path) as journal:
        first = journal.append("epoch", epoch=1)
        real = os.write

        def full_disk(descriptor, data):
            real(descriptor, data[:10])
            raise OSError("disk full")

        monkeypatch.setattr(os, "write", full_disk)
        with pytest.raises(OSError, match="disk full"):
            journal.append("epoch", epoch=2)
        monkeypatch.setattr(os, "write", lambda descriptor, data: real(descriptor, data[:7]))
        third = journal.append("epoch", epoch=3)
    assert third.n == 1
    assert read_journal(path) == [first, third]


def test_a_tail_gives_each_line_once_and_waits_for_a_partial_one(path):
    lines = write_three(path)
    data = path.read_bytes()
    path.write_bytes(b"")
    tail = JournalTail(path)
    found = []
    with path.open("ab", buffering=0) as file:
        for start in range(0, len(data), 11):
            file.write(data[start : start + 11])
            found += tail.poll()
            assert found == read_journal(path)
    assert found == lines
    assert tail.poll() == []


def test_a_tail_follows_a_writer_that_cut_a_torn_line(path):
    lines = write_three(path)
    tail = JournalTail(path)
    with path.open("ab") as file:
        file.write(b'{"n": 3, "time_ms"')
    assert tail.poll() == lines
    with JournalWriter(path) as journal:
        added = journal.append("epoch", epoch=9)
    assert tail.poll() == [added]


def test_a_tail_reads_nothing_while_nothing_changed(path, monkeypatch):
    write_three(path)
    tail = JournalTail(path)
    tail.poll()
    monkeypatch.setattr(type(path), "open", lambda *_: pytest.fail("opened an unchanged journal"))
    assert tail.poll() == []
