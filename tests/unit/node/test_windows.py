"""Windows over midnight, and through the nights on which the clocks change."""

from __future__ import annotations

from datetime import datetime, tzinfo
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicom_node.windows import Window, is_open, opens_at, parse

BERLIN = ZoneInfo("Europe/Berlin")
NIGHT = (parse("22:00-06:00"),)


def at(text: str, zone: tzinfo = BERLIN, *, second_time: bool = False) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=zone, fold=int(second_time)).timestamp()


@pytest.mark.parametrize(
    ("hour", "inside"),
    [
        ("21:59:59", False),
        ("22:00", True),
        ("23:59", True),
        ("00:00", True),
        ("05:59:59", True),
        ("06:00", False),
        ("12:00", False),
    ],
)
def test_a_window_over_midnight_includes_its_start_and_not_its_end(hour: str, inside: bool) -> None:
    assert is_open(NIGHT, at(f"2026-07-01T{hour}"), BERLIN) is inside


def test_several_windows_and_none() -> None:
    windows = (parse("12:00-13:00"), parse("22:00-00:00"))
    found = [
        is_open(windows, at(f"2026-07-01T{hour}"), BERLIN) for hour in ("11:59", "12:30", "13:00", "23:59")
    ]
    assert found == [False, True, False, True]
    assert not is_open(windows, at("2026-07-02T00:00"), BERLIN)
    assert is_open((), 0.0, BERLIN)
    assert opens_at((), 5.0, BERLIN) == 5.0


def test_when_it_opens() -> None:
    assert opens_at(NIGHT, at("2026-07-01T12:00:30"), BERLIN) == at("2026-07-01T22:00")
    assert opens_at(NIGHT, at("2026-07-01T23:00"), BERLIN) == at("2026-07-01T23:00")


def test_the_hour_that_is_skipped_in_spring() -> None:
    """02:00 to 03:00 does not exist on 29 March 2026."""
    window = (parse("02:30-04:00"),)
    assert opens_at(window, at("2026-03-29T01:00"), BERLIN) == at("2026-03-29T03:00")
    lost = (parse("02:15-02:45"),)
    assert opens_at(lost, at("2026-03-29T01:00"), BERLIN) == at("2026-03-30T02:15")
    assert at("2026-03-29T06:00") - opens_at(NIGHT, at("2026-03-28T12:00"), BERLIN) == 7 * 3600


def test_the_hour_that_comes_twice_in_autumn() -> None:
    """02:00 to 03:00 comes twice on 25 October 2026."""
    window = (parse("02:00-02:30"),)
    first, second = at("2026-10-25T02:10"), at("2026-10-25T02:10", second_time=True)
    assert second - first == 3600
    assert is_open(window, first, BERLIN)
    assert is_open(window, second, BERLIN)
    assert opens_at(window, at("2026-10-25T02:30"), BERLIN) == second - 600


@given(
    st.integers(0, 1439),
    st.integers(0, 1439),
    st.floats(1_600_000_000, 1_900_000_000),
    st.sampled_from(["Europe/Berlin", "America/St_Johns", "Australia/Lord_Howe", "Asia/Tokyo", "UTC"]),
)
def test_it_opens_at_the_first_moment_that_is_inside(start: int, end: int, now: float, name: str) -> None:
    zone, windows = ZoneInfo(name), (Window(start, end),) if start != end else ()
    opening = opens_at(windows, now, zone)
    assert is_open(windows, opening, zone)
    assert now <= opening <= now + 26 * 3600
    if opening > now:
        assert not is_open(windows, opening - 1, zone)


@pytest.mark.parametrize(
    "text", ["22-06", "22:00", "24:00-06:00", "22:60-06:00", "2:00-6:00", "22:00 - 06:00", ""]
)
def test_what_is_no_window(text: str) -> None:
    with pytest.raises(ValueError, match="HH:MM-HH:MM"):
        parse(text)


def test_an_empty_window() -> None:
    with pytest.raises(ValueError, match="begins when it ends"):
        parse("06:00-06:00")
