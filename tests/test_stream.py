"""Live sessions: what goes in, what comes out, what is refused, and what is remembered."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import numpy as np
import polars as pl
import pytest
from catalogue_models import HORIZON, Row, hold_equal, row_named

import segue
from segue.errors import DataError, RunError
from segue.run import Run

pytestmark = pytest.mark.usefixtures("one_thread")


def refused(call: Any, *arguments: Any, error: type[Exception] = DataError) -> str:
    with pytest.raises(error) as caught:
        call(*arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


CLASSIFY = row_named("classify-plain")
KNOWN = row_named("forecast-known-ahead-plain")
COUNTED = row_named("forecast-many-series-plain")


def first_record(row: Row, index: int = 0) -> dict[str, Any]:
    return row.records("a")[index]


# What comes out -----------------------------------------------------------------------------------


def test_a_forecast_has_its_times_and_a_list_per_column() -> None:
    made = KNOWN.run.session().step(first_record(KNOWN))
    names = [f"{column}{part}" for column in ("v0", "v1") for part in ("", "_q10", "_q50", "_q90")]
    assert list(made) == [*names, "time"]
    assert all(len(values) == HORIZON for values in made.values())
    assert made["time"] == [datetime(2026, 1, 1) + timedelta(hours=h) for h in (1, 2, 3)]


def test_a_class_has_its_probabilities() -> None:
    made = CLASSIFY.run.session().step(first_record(CLASSIFY))
    assert list(made) == ["kind", "kind_p_bad", "kind_p_good"]
    assert made["kind_p_bad"] + made["kind_p_good"] == pytest.approx(1)


def test_nothing_in_gives_nothing_out() -> None:
    session = CLASSIFY.run.session()
    before = session.snapshot()
    assert session.chunk([]) == []
    assert CLASSIFY.run.sessions().step({}) == {}
    assert CLASSIFY.run.sessions().chunks({"a": []}) == {"a": []}
    assert session.snapshot() == before


def test_further_fields_of_a_record_do_not_matter() -> None:
    record = first_record(CLASSIFY)
    expected = CLASSIFY.run.session().step(record)
    assert CLASSIFY.run.session().step({"note": object(), **record}) == expected


def test_times_may_be_texts() -> None:
    record = first_record(CLASSIFY)
    expected = CLASSIFY.run.session().step(record)
    text = {**record, "time": record["time"].isoformat()}
    assert CLASSIFY.run.session().step(text) == expected


def test_a_static_input_is_read_from_the_first_record_alone() -> None:
    session, records = CLASSIFY.run.session(), CLASSIFY.records("a")
    made = [session.step(records[0])]
    for record in records[1:]:
        made.append(session.step({k: v for k, v in record.items() if k not in ("site", "size")}))
    hold_equal(made, CLASSIFY.stepped["a"])


def test_keys_are_kept_in_the_order_in_which_they_came() -> None:
    sessions = COUNTED.run.sessions()
    record = COUNTED.records("a")[0]
    sessions.step({"z": record, 7: record})
    sessions.step({"b": record, "z": record})
    assert sessions.keys == ("z", 7, "b")
    sessions.drop("z")
    assert set(sessions.keys) == {7, "b"}
    again = COUNTED.run.sessions()
    again.restore(sessions.snapshot())
    assert again.keys == sessions.keys
    assert again.step({7: record}) == sessions.step({7: record})


# What is refused ----------------------------------------------------------------------------------


def test_a_record_without_an_input_is_refused() -> None:
    record = first_record(CLASSIFY)
    for column in ("x", "word", "site", "time"):
        less = {name: value for name, value in record.items() if name != column}
        assert refused(CLASSIFY.run.session().step, less) == (
            f"record 1: expected a value for {column!r}, got only {', '.join(less)}; "
            "add it; null says that it is not observed"
        )
    assert refused(CLASSIFY.run.session().step, {}) == (
        "record 1: expected a value for 'site', got an empty record; "
        "add it; null says that it is not observed"
    )


def test_the_message_names_the_key_and_the_record() -> None:
    one, two = first_record(CLASSIFY), first_record(CLASSIFY, 1)
    bad = {name: value for name, value in two.items() if name != "z"}
    message = refused(CLASSIFY.run.sessions().chunks, {"a": [one], "b": [one, bad]})
    assert message.startswith("key 'b', record 2: expected a value for 'z', got only ")


@pytest.mark.parametrize("value", ["many", [1.0], float("inf"), -float("inf")])
def test_a_value_of_another_kind_is_refused(value: Any) -> None:
    session = CLASSIFY.run.session()
    before = session.snapshot()
    message = refused(session.step, {**first_record(CLASSIFY), "x": value})
    assert message.startswith("records: ") and "'x'" in message
    assert session.snapshot() == before


def test_a_missing_value_is_none_or_nan() -> None:
    record = first_record(CLASSIFY)
    none = CLASSIFY.run.session().step({**record, "x": None})
    assert CLASSIFY.run.session().step({**record, "x": float("nan")}) == none


def test_a_time_that_does_not_rise_is_refused() -> None:
    records, session = CLASSIFY.records("a"), CLASSIFY.run.session()
    session.chunk(records[:3])
    before = session.snapshot()
    now = records[2]["time"]
    for late in (records[1], records[2]):
        assert refused(session.step, late) == (
            f"record 1: 'time': expected a time after {now}, got {late['time']}; "
            "send the records of a sequence in time order"
        )
    assert refused(session.chunk, [records[4], records[3]]) == (
        f"record 2: 'time': expected a time after {records[4]['time']}, "
        f"got {records[3]['time']}; send the records of a sequence in time order"
    )
    assert session.snapshot() == before
    hold_equal(session.chunk(records[3:]), CLASSIFY.stepped["a"][3:])


def test_another_sequence_has_its_own_time() -> None:
    records = CLASSIFY.records("a")
    sessions = CLASSIFY.run.sessions()
    sessions.step({"a": records[5]})
    hold_equal(sessions.step({"b": records[0]})["b"], CLASSIFY.stepped["a"][0])


def numbered() -> Run:
    """A model whose time is a number."""
    rng = np.random.default_rng(0)
    frame = pl.DataFrame(
        {"t": rng.random(40).cumsum(), "x": rng.normal(size=40), "y": [1.0, 2] * 20}
    )
    spec = {
        "data": {"rows": "steps", "time": "t", "split": {"by": "none"}},
        "inputs": {"x": {"kind": "number"}},
        "outputs": {"y": {"task": "regress", "at": "every"}},
        "model": {"hidden": 4},
        "training": {"epochs": 1},
    }
    return segue.fit(spec, frame)


@pytest.mark.parametrize("time", [None, float("nan")])
def test_a_record_without_a_time_is_refused(time: Any) -> None:
    session = numbered().session()
    session.step({"t": 1.5, "x": 0.0})
    assert refused(session.step, {"t": time, "x": 0.0}) == (
        f"record 1: 't': expected a time after 1.5, got {time}; "
        "send the records of a sequence in time order"
    )
    assert refused(numbered().session().step, {"t": time, "x": 0.0}) == (
        f"record 1: 't': expected a time, got {time}; send the records of a sequence in time order"
    )


@pytest.mark.parametrize(
    ("ahead", "got"),
    [
        (None, "none"),
        ("soon", "none"),
        ({}, "none"),
        ({"heat": 1.0}, "none"),
        ({"heat": [1.0]}, "1 values"),
    ],
)
def test_a_record_without_the_future_that_it_needs_is_refused(ahead: Any, got: str) -> None:
    record = {**first_record(KNOWN), "ahead": ahead}
    assert refused(KNOWN.run.session().step, record) == (
        f"record 1: ahead.heat: expected a list of the next 3 values, got {got}; "
        "it is declared as known ahead"
    )


def test_dropping_an_unknown_key_is_refused() -> None:
    sessions = COUNTED.run.sessions()
    sessions.step({"a": COUNTED.records("a")[0]})
    assert refused(sessions.drop, "b") == (
        "drop: 'b': expected a key that has a state, got one of 1 others; see `keys`"
    )


# What is remembered -------------------------------------------------------------------------------


def test_a_fork_and_its_origin_do_not_touch_each_other() -> None:
    records = COUNTED.records("a")
    one = COUNTED.run.sessions()
    one.chunks({"a": records[:5], "b": records[:2]})
    two = one.fork()
    two.chunks({"a": records[5:], "c": records})
    two.drop("b")
    assert one.keys == ("a", "b")
    hold_equal(one.chunks({"a": records[5:]})["a"], COUNTED.stepped["a"][5:])
    hold_equal(one.chunks({"b": records[2:]})["b"], COUNTED.stepped["a"][2:])


def test_a_snapshot_is_not_changed_by_what_comes_after() -> None:
    session, records = COUNTED.run.session(), COUNTED.records("a")
    session.chunk(records[:3])
    taken = session.snapshot()
    copy = bytes(taken)
    session.restore(taken)
    session.chunk(records[3:])
    assert taken == copy
    session.restore(taken)
    hold_equal(session.chunk(records[3:]), COUNTED.stepped["a"][3:])


def test_a_damaged_snapshot_is_refused() -> None:
    session = COUNTED.run.session()
    session.step(COUNTED.records("a")[0])
    taken = session.snapshot()
    before = session.step(COUNTED.records("a")[1])
    for position in range(0, len(taken), 97):
        harmed = bytearray(taken)
        harmed[position] ^= 4
        refused(session.restore, bytes(harmed), error=RunError)
    for text in (b"", b"hello", taken[:100], taken[:-1]):
        assert refused(session.restore, text, error=RunError) == (
            f"snapshot: expected bytes that `snapshot` gave, got {len(text)} other bytes; "
            "take a new snapshot"
        )
    harmed = taken[:-1] + bytes([taken[-1] ^ 1])
    assert refused(session.restore, harmed, error=RunError) == (
        "snapshot: expected a snapshot as it was taken, got another SHA-256 than it says; "
        "take a new snapshot"
    )
    session.restore(taken)
    assert session.step(COUNTED.records("a")[1]) == before


def test_a_snapshot_of_another_model_is_refused() -> None:
    taken = CLASSIFY.run.session().snapshot()
    other = row_named("classify-mean")
    assert refused(other.run.session().restore, taken, error=RunError) == (
        "snapshot: expected a snapshot of this model, got one of another model; "
        "restore it with its own run"
    )


def test_room_for_many_keys_is_made_and_used_again() -> None:
    record = COUNTED.records("a")[0]
    sessions = COUNTED.run.sessions()
    for start in range(0, 40, 5):
        sessions.step({key: record for key in range(start, start + 5)})
    room = len(sessions._state.clock)
    assert 40 <= room <= 80
    for key in range(0, 40, 2):
        sessions.drop(key)
    made = sessions.step({key: record for key in range(100, 120)})
    assert len(sessions._state.clock) == room
    hold_equal(list(made.values()), [COUNTED.stepped["a"][0]] * 20)
    second = sessions.step({key: COUNTED.records("a")[1] for key in (1, 39, 119)})
    hold_equal(list(second.values()), [COUNTED.stepped["a"][1]] * 3)
