"""FHIR's times: precision and offset as they were said, and nothing guessed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.ingest.readers.fhir_times import EPOCH, MICROSECOND, by_form, moment


@pytest.mark.parametrize(
    ("text", "utc", "precision", "offset"),
    [
        ("2020", "2020-01-01T00:00:00", "year", None),
        ("2020-02", "2020-02-01T00:00:00", "month", None),
        ("2020-02-29", "2020-02-29T00:00:00", "day", None),
        ("2020-02-29T23:59:59Z", "2020-02-29T23:59:59", "second", 0),
        ("2020-02-29T23:59:59.123456789-05:30", "2020-03-01T05:29:59.123456", "second", -330),
        ("2020-02-29T00:00:00+14:00", "2020-02-28T10:00:00", "second", 840),
        ("2020-02-29T10:00Z", "2020-02-29T10:00:00", "second", 0),
        ("2016-12-31T23:59:60Z", "2017-01-01T00:00:00", "second", 0),
    ],
)
def test_times_keep_precision_and_offset(text: str, utc: str, precision: str, offset: int | None) -> None:
    at = moment(text)
    assert at is not None
    assert EPOCH + at.us * MICROSECOND == datetime.fromisoformat(utc).replace(tzinfo=UTC)
    assert (at.precision, at.offset_min, at.lost_time) == (precision, offset, False)


def test_a_time_of_day_without_a_zone_is_only_a_day() -> None:
    at = moment("2020-02-29T23:30:00")
    assert at is not None
    assert (at.precision, at.offset_min, at.lost_time) == ("day", None, True)
    assert EPOCH + at.us * MICROSECOND == datetime(2020, 2, 29, tzinfo=UTC)


@pytest.mark.parametrize(
    "text",
    [
        "", "x", "20", "2020-1-1", "20200101", "2020-13", "2020-02-30", "2020-01-01T25:00:00Z", "0000",
        "2020-01-01 10:00:00Z", "2020-01-01T10:00:00+15:00", "2020-01-01T10:00:61Z", "2020-W01-1", "２０２０",
        "2020-01-01T10:00:00Z\n", "9999-12-31T23:59:60Z", "0001-01-01T00:00:00+01:00",
        "2020-01-01T10:00:00+01:60",
    ],
)  # fmt: skip
def test_what_is_not_a_fhir_time_is_none(text: str) -> None:
    assert moment(text) is None


@given(
    st.datetimes(min_value=datetime(2, 1, 1), max_value=datetime(9998, 1, 1)),
    st.integers(min_value=-14 * 60, max_value=14 * 60),
)
def test_any_instant_comes_back(local: datetime, offset: int) -> None:
    aware = local.replace(tzinfo=timezone(timedelta(minutes=offset)))
    at = moment(aware.isoformat(timespec="microseconds"))
    assert at is not None
    assert EPOCH + at.us * MICROSECOND == aware
    assert at.offset_min == offset


@given(st.text(max_size=30))
def test_any_text_is_a_time_or_none(text: str) -> None:
    at = moment(text)
    assert at is None or text[:4].isdigit()


@given(
    st.sampled_from(
        ["0001-01-01", "2020-02-29", "2021-02-29", "9999-12-31", "2020-1-01", "2020-00-10", "20200229"]
    ),
    st.sampled_from(["T", "t", " "]),
    st.from_regex(r"[0-2][0-9]:[0-6][0-9]:[0-6][0-9]", fullmatch=True),
    st.sampled_from(["", ".5", ".1234567", ".1234567890123", "."]),
    st.sampled_from(
        ["Z", "+00:00", "-05:30", "+14:00", "+14:01", "-23:00", "+01:60", "", "z", "Z ", "+0100"]
    ),
)
def test_the_shorter_way_says_what_the_whole_form_says(
    day: str, sign: str, clock: str, fraction: str, zone: str
) -> None:
    text = f"{day}{sign}{clock}{fraction}{zone}"
    assert moment(text) == by_form(text)
