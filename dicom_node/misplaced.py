"""Frames that were marked in another place of their instance: cut out, moved or exchanged.

A record is bound to its frame's number, so a frame that moved reads as nothing where it is now. Under the
number that it was marked with it reads as the original, and that is proof.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from blessmark.types import Finding, Verdict

#: looks that find nothing, before the rest is left unexplained: they cost as much as reading a frame
_VAIN_LOOKS = 32
#: how many frames at most may be taken to lack where no record says how many there were
_LACKING = 8


def misplaced(
    verdicts: Sequence[Verdict], frames: int, look: Callable[[int, int], Verdict]
) -> dict[int, Verdict]:
    """Frame number -> what it proves to be, for frames in another place than they were marked in.

    Such a verdict is `pixels-altered`, and its record holds the number that the frame was marked with.

    Parameters
    ----------
    verdicts : on every frame where it is
    frames : how many there are
    look : judges frame (first argument) as if its number were another (second argument)
    """
    records = [verdict.record for verdict in verdicts if verdict.record is not None]
    read = {record.frame for record in records}
    most = max((record.frames for record in records), default=0) or frames + _LACKING
    free = [number for number in range(1, max(most, frames) + 1) if number not in read]
    found: dict[int, Verdict] = {}
    vain, shift = 0, 1
    for number in (verdict.evidence.frame for verdict in verdicts if verdict.record is None):
        for other in _likeliest_first(number, free, shift):
            if vain == _VAIN_LOOKS:
                return found
            seen = look(number, other)
            if seen.exact or seen.approximate:
                found[number] = _as_found(seen, number)
                free.remove(other)
                shift = other - number
                break
            vain += 1
    return found


def _likeliest_first(number: int, free: Sequence[int], shift: int) -> Iterator[int]:
    """Where a frame may have been: as far away as the one before it, else wherever a frame lacks."""
    others = [other for other in free if other != number]
    return iter(sorted(others, key=lambda other: (other != number + shift, abs(other - number))))


def _as_found(seen: Verdict, number: int) -> Verdict:
    evidence = replace(seen.evidence, frame=number)
    return replace(
        seen,
        finding=Finding.PIXELS_ALTERED,
        evidence=evidence,
        restored=None,
        exact=False,
        approximate=False,
    )
