"""The time of every stage, none twice; and nothing at all for who does not ask."""

from __future__ import annotations

import threading

import pytest

from dicom_node import measuring
from dicom_node.measuring import measured, stage, tell, tell_modality
from dicom_node.metrics import PSNR, STAGE_SECONDS, Reading


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    ticks = [0.0]
    monkeypatch.setattr(measuring.time, "perf_counter", lambda: ticks[0])
    return ticks


def test_of_stages_within_each_other_only_the_inner_one_runs(now: list[float]) -> None:
    with measured() as seen:
        now[0] += 100
        with stage("encode"):
            now[0] += 1
            for _ in range(2):
                with stage("embed"):
                    now[0] += 2
                    with stage("segment"):
                        now[0] += 4
                    now[0] += 8
            now[0] += 16
        now[0] += 100
    assert seen.seconds == {"encode": 17, "embed": 20, "segment": 8}
    assert Reading(STAGE_SECONDS, ("segment",), 8.0) in seen.readings()


def test_a_stage_that_fails_is_measured_and_ends(now: list[float]) -> None:
    def fail() -> None:
        with stage("decode"):
            now[0] += 3
            raise ValueError("broken")

    with measured() as seen:
        with pytest.raises(ValueError, match="broken"):
            fail()
        now[0] += 5
        with stage("spool"):
            now[0] += 1
    assert seen.seconds == {"decode": 3, "spool": 1}


def test_what_is_told_is_counted_with_the_instance() -> None:
    with measured() as seen:
        tell_modality("MR ")
        tell(Reading(PSNR, (), 80.0))
    assert seen.modality == "MR"
    assert seen.readings() == [Reading(PSNR, (), 80.0)]


def test_whoever_watches_hears_of_every_step() -> None:
    heard: list[str] = []
    with measured() as seen:
        seen.step = lambda: heard.append(seen.running)
        with stage("decode"):
            pass
        for _ in range(2):
            with stage("extract"):
                pass
    assert heard == ["decode", "", "extract", "", "extract", ""]


def test_outside_nothing_is_kept() -> None:
    with stage("decode"):
        tell_modality("MR")
        tell(Reading(PSNR, (), 80.0))
    with measured() as seen:
        pass
    assert (seen.modality, seen.readings()) == ("unknown", [])


def test_only_stages_that_are_declared() -> None:
    with measured(), pytest.raises(AssertionError), stage("lunch"):
        pass


def test_each_thread_has_its_own() -> None:
    def other() -> None:
        with stage("decode"):
            tell(Reading(PSNR, (), 1.0))

    with measured() as seen:
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
    assert seen.readings() == []
