"""The log of a run: one JSON object a line, readable after a crash."""

import json
import math

import pytest

from simcse.errors import ArtifactError, ResourceError
from simcse.io.log import append_log, read_log

EVENTS = [
    {"event": "start", "steps": 3, "rows": 12},
    {"event": "step", "step": 1, "loss": 0.1 + 0.2, "lr": 3e-5},
    {"event": "eval", "step": 1, "stsb_dev": None, "best": False},
    {"event": "note", "text": "été\n\u2028\x85 \U0001f600"},
]


def test_events_come_back_in_order(tmp_path):
    path = tmp_path / "log.jsonl"
    for count, event in enumerate(EVENTS, 1):
        append_log(path, event)
        assert read_log(path) == EVENTS[:count]


def test_a_line_is_an_event_for_any_reader(tmp_path):
    path = tmp_path / "log.jsonl"
    for event in EVENTS:
        append_log(path, event)
    data = path.read_bytes()
    assert [json.loads(line) for line in data.splitlines()] == EVENTS
    assert data.count(b"\n") == len(EVENTS)
    assert b"\r" not in data
    assert len(data.decode().splitlines()) == len(EVENTS)


def test_a_number_that_is_not_finite_never_gets_into_the_log(tmp_path):
    path = tmp_path / "log.jsonl"
    append_log(path, EVENTS[0])
    with pytest.raises(ValueError, match="JSON compliant"):
        append_log(path, {"event": "step", "loss": math.nan})
    assert read_log(path) == EVENTS[:1]


def test_a_last_line_cut_anywhere_is_left_out(tmp_path):
    path = tmp_path / "log.jsonl"
    for event in EVENTS:
        append_log(path, event)
    data = path.read_bytes()
    last = data.rstrip(b"\n").rindex(b"\n") + 1
    for cut in range(last, len(data) - 1):
        path.write_bytes(data[:cut])
        assert read_log(path) == EVENTS[:-1]


def test_an_empty_log_has_no_events(tmp_path):
    path = tmp_path / "log.jsonl"
    path.touch()
    assert read_log(path) == []


def test_another_bad_line_is_named(tmp_path):
    path = tmp_path / "log.jsonl"
    path.write_text('{"event": "start"}\n{"event": \n{"event": "finish"}\n')
    with pytest.raises(ArtifactError, match=r"log\.jsonl:2: not a JSON line") as error:
        read_log(path)
    assert error.value.exit_code == 4


def test_a_missing_log_is_an_artifact_error(tmp_path):
    with pytest.raises(ArtifactError, match="cannot read .*No such file"):
        read_log(tmp_path / "log.jsonl")


@pytest.mark.parametrize("where", ["", "none/log.jsonl"])
def test_a_log_that_cannot_be_written_is_a_resource_error(tmp_path, where):
    with pytest.raises(ResourceError, match="cannot write") as error:
        append_log(tmp_path / where, EVENTS[0])
    assert error.value.exit_code == 5


def test_bytes_that_are_no_text_are_an_artifact_error(tmp_path):
    (tmp_path / "log.jsonl").write_bytes(b'{"event": "\xff"}\n{"event": "finish"}\n')
    with pytest.raises(ArtifactError, match=r"log\.jsonl"):
        read_log(tmp_path / "log.jsonl")


def test_a_resumed_run_starts_a_new_line_after_one_cut_short(tmp_path):
    path = tmp_path / "log.jsonl"
    path.write_text('{"event": "start"}\n{"event": "st')
    append_log(path, EVENTS[1])
    append_log(path, EVENTS[2])
    assert read_log(path)[-2:] == EVENTS[1:3]
