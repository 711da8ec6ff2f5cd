"""What `verify` and its hints make of marked images that a codec, a filter or a converter went over."""

from __future__ import annotations

import functools
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.alterations import Alteration, alterations
from benchmarks.images import RING, chosen, dicom_files, fundus_about, sample, thinned
from benchmarks.results import Cell, Result, Table, share
from benchmarks.run import Run, spread
from blessmark.cause import Claims, explained
from blessmark.embed import embed
from blessmark.errors import CapacityError
from blessmark.payload import crypto
from blessmark.portrait import Portrait, portrait
from blessmark.segment import segmenter
from blessmark.types import About, Cause, Finding, Frame, IntArray, Verdict
from blessmark.verify import verify
from tests import phantoms

#: files of each folder whose images the thresholds of `blessmark.cause` were set on
_SEEN = 3
#: larger ones would take an hour and tell nothing else
_MOST_SAMPLES = 2_500_000
_NOTHING = "no hint"
#: a sealed record is not needed here; the header of a protected object names the key
_HINT = crypto.fingerprint(RING.current)


@dataclass(frozen=True, slots=True)
class _Row:
    """One altered image: the finding, the first hint, and whether it is right; with a portrait or not."""

    name: str
    lossy: bool
    fresh: bool
    finding: str
    restored: bool
    told: str
    right: bool
    right_if_said: bool
    right_without: bool


def measure(run: Run) -> Result:
    """Alter marked images of the folder and phantoms in every way of the table."""
    files = dicom_files(run.data)
    seen = set(thinned(files, _SEEN))
    picked = chosen(files, 6 if run.quick else 48, run.seed)
    made = _phantoms()
    items = [*((path, path not in seen) for path in picked), *((name, True) for name in made)]
    found = spread(functools.partial(_measure, run), items)
    rows = [row for each in found for row in each]
    images = sum(bool(each) for each in found)
    tables = (_confusion(rows), _findings(rows))
    return Result("causes", "Causes", _NOTES, tables, {"seed": run.seed, "images": images})


_NOTES = (
    "A random sample of the image folder's `dicom/` and phantoms, marked by default (segmenter `anatomy`, "
    "ladder), then altered.",
    "Hint: the first cause that is told, from the sealed portrait and the altered samples. Right: it names "
    "what was done. New: the same of images on which no threshold was set (the first three files of a folder "
    "were looked at for that, so small folders were looked at whole).",
    "Header says so: the same where the object says that it was compressed with loss (0028,2110), as PS3.3 "
    "wants it.",
    "No portrait: the private block was dropped on the way.",
    "8 bits: JPEG by libjpeg. Deeper images: its transform and tables, steps scaled to the range in use.",
)


def _phantoms() -> dict[str, Frame]:
    shape = (384, 384)
    return {
        "body in air": phantoms.frame(phantoms.body_in_air(shape)),
        "circular CT": phantoms.frame(
            phantoms.circular_ct(shape), lo=-32768, hi=32767, padding=(-2000, -2000)
        ),
        "8 bits": phantoms.frame(phantoms.body_in_air(shape, 20, 200) // 2, hi=255),
    }


def _frame(item: Path | str) -> Frame | None:
    if isinstance(item, str):
        return _phantoms()[item]
    found = sample(item, 64)
    return None if found is None or found.frame.samples.size > _MOST_SAMPLES else found.frame


def _measure(run: Run, item: tuple[Path | str, bool]) -> list[_Row]:
    source, fresh = item
    frame = _frame(source)
    if frame is None:
        return []
    name = source if isinstance(source, str) else source.name
    about = _about(source)
    anatomy = segmenter("anatomy")
    try:
        done = embed(frame, about, RING, anatomy)
    except CapacityError:
        return []
    then = Portrait.from_bytes(portrait(done.frame).to_bytes())
    rng = np.random.default_rng([run.seed, sum(name.encode())])
    return [_row(each, then, frame.samples, fresh=fresh) for each in alterations(done.frame, rng)]


def _about(source: Path | str) -> About:
    found = None if isinstance(source, str) else sample(source)
    return found.about if found is not None else fundus_about(str(source))


def _row(each: Alteration, then: Portrait | None, original: IntArray, *, fresh: bool) -> _Row:
    verdict = verify(each.frame, RING, (segmenter("anatomy"),), hinted_keys=[_HINT])
    told = _told(verdict, each, then, Claims())
    said = _told(verdict, each, then, Claims(lossy_now=each.lossy))
    without = _told(verdict, each, None, Claims())
    restored = verdict.restored
    return _Row(
        each.name,
        each.lossy,
        fresh,
        str(verdict.finding),
        restored is not None and np.array_equal(restored.samples, original),
        told,
        told in each.causes,
        said in each.causes,
        without in each.causes,
    )


def _told(verdict: Verdict, each: Alteration, then: Portrait | None, claims: Claims) -> str:
    causes = explained(verdict, each.frame, then, claims).evidence.causes
    return str(causes[0].cause) if causes else _NOTHING


def _confusion(rows: list[_Row]) -> Table:
    words = [*(str(cause) for cause in Cause), _NOTHING]
    columns = ("alteration", "images", *words, "right", "new", "header says so", "no portrait")
    names = list(dict.fromkeys(row.name for row in rows))
    lines = [_line(name, [row for row in rows if row.name == name], words) for name in names]
    return Table("What is told of what was done", columns, (*lines, _line("all", rows, words)))


def _line(name: str, rows: list[_Row], words: list[str]) -> tuple[Cell, ...]:
    told = Counter(row.told for row in rows)
    fresh = [row for row in rows if row.fresh]
    said = (
        share(sum(row.right_if_said for row in rows), len(rows)) if any(row.lossy for row in rows) else None
    )
    return (
        name,
        len(rows),
        *(told[word] or None for word in words),
        share(sum(row.right for row in rows), len(rows)),
        share(sum(row.right for row in fresh), len(fresh)),
        said,
        share(sum(row.right_without for row in rows), len(rows)),
    )


def _findings(rows: list[_Row]) -> Table:
    columns = (
        "alteration",
        "images",
        *(str(finding) for finding in Finding),
        "authentic and not the original",
    )
    names = list(dict.fromkeys(row.name for row in rows))
    lines = [_finding_line(name, [row for row in rows if row.name == name]) for name in names]
    return Table("Findings", columns, (*lines, _finding_line("all", rows)))


def _finding_line(name: str, rows: list[_Row]) -> tuple[Cell, ...]:
    counts = Counter(row.finding for row in rows)
    wrong = sum(row.finding == Finding.AUTHENTIC and not row.restored for row in rows)
    return (name, len(rows), *(counts[str(finding)] or None for finding in Finding), wrong)
