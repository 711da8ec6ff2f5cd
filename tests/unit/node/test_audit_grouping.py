"""What is alike is told once; what a peer repeats is counted."""

from __future__ import annotations

from dicom_node.audit.events import (
    MOST_CLASSES,
    Alert,
    ApplicationStarted,
    Event,
    Objects,
    Outcome,
    Party,
    SecurityAlert,
    Study,
    Transferred,
)
from dicom_node.audit.grouping import MOST_DIFFERENT, Repeats, together

A, B = Party("A"), Party("B")


def sent(
    at: float, study: str = "1", outcome: Outcome = Outcome.SUCCESS, sop_class: str = "ct"
) -> Transferred:
    return Transferred(at, A, B, Objects(Study(study), ((sop_class, 1),)), outcome=outcome)


def refused(at: float, who: str = "X") -> SecurityAlert:
    return SecurityAlert(at, Alert.ASSOCIATION_REFUSED, "unknown", who=Party(who))


def test_objects_of_a_study_are_one_event_at_the_time_of_the_first() -> None:
    (found,) = together([sent(1.0), sent(2.0), sent(3.0, sop_class="mr")])
    assert isinstance(found, Transferred)
    assert (found.at, found.objects.classes) == (1.0, (("ct", 2), ("mr", 1)))


def test_studies_and_outcomes_stay_apart_and_in_order() -> None:
    events: list[Event] = [sent(1.0), sent(2.0, "2"), sent(3.0, outcome=Outcome.SERIOUS), sent(4.0)]
    assert [event.at for event in together([ApplicationStarted(0.0), *events])] == [0.0, 1.0, 2.0, 3.0]


def test_grouping_twice_changes_nothing() -> None:
    once = together([sent(1.0), sent(2.0), refused(3.0), refused(4.0)])
    assert together(once) == once


def test_the_first_refusal_is_told_at_once_and_the_others_are_counted() -> None:
    repeats = Repeats(60.0)
    assert [repeats.is_first(refused(at)) for at in (0.0, 1.0, 2.0)] == [True, False, False]
    assert repeats.due(59.0) == []
    (counted,) = repeats.due(60.0)
    assert isinstance(counted, SecurityAlert)
    assert (counted.at, counted.count) == (1.0, 2)
    assert repeats.due(61.0) == []
    assert repeats.is_first(refused(61.0))


def test_a_clock_that_is_put_back_holds_nothing_back() -> None:
    repeats = Repeats(60.0)
    year = 365 * 86400.0
    assert [repeats.is_first(refused(year + at)) for at in (0.0, 1.0)] == [True, False]
    (counted,) = repeats.due(5.0)
    assert isinstance(counted, SecurityAlert)
    assert counted.count == 1
    assert [repeats.is_first(refused(at)) for at in (6.0, 7.0)] == [True, False]
    assert repeats.due(65.0) == []
    assert len(repeats.due(66.0)) == 1


def test_another_peer_is_told_at_once() -> None:
    repeats = Repeats(60.0)
    assert repeats.is_first(refused(0.0, "X"))
    assert repeats.is_first(refused(1.0, "Y"))


def test_a_storm_of_names_is_bounded_and_nobody_is_forgotten() -> None:
    repeats = Repeats(60.0)
    told = sum(repeats.is_first(refused(0.0, f"X{number}")) for number in range(10 * MOST_DIFFERENT))
    (rest,) = repeats.due(60.0)
    assert isinstance(rest, SecurityAlert)
    assert (told, rest.who, told + rest.count) == (MOST_DIFFERENT, None, 10 * MOST_DIFFERENT)


def test_a_storm_of_words_is_bounded_too() -> None:
    """AE titles that nobody has are free, and so are SOP classes."""
    repeats = Repeats(60.0)
    for number in range(3 * MOST_DIFFERENT):
        called = f"unknown-called-ae calling X{number}"
        repeats.is_first(SecurityAlert(1.0, Alert.ASSOCIATION_REFUSED, called, who=Party("X")))
        repeats.is_first(
            Transferred(1.0, A, Party(f"X{number}"), Objects(Study(), ((f"1.2.{number}", 1),)), why="A900")
        )
    refusals, objects = repeats.due(61.0)
    assert isinstance(refusals, SecurityAlert)
    assert isinstance(objects, Transferred)
    told = MOST_DIFFERENT // 2
    assert refusals.count == 3 * MOST_DIFFERENT - told
    assert objects.objects.classes == (("", 3 * MOST_DIFFERENT - told),)


def test_a_message_names_only_so_many_classes() -> None:
    """Private classes are free, and a datagram that is too long would hold up all behind it for ever."""
    (found,) = together(sent(1.0, sop_class=f"1.2.{number}") for number in range(3 * MOST_CLASSES))
    assert isinstance(found, Transferred)
    assert len(found.objects.classes) == MOST_CLASSES
    assert dict(found.objects.classes)[""] == 2 * MOST_CLASSES + 1
    assert sum(count for _, count in found.objects.classes) == 3 * MOST_CLASSES
