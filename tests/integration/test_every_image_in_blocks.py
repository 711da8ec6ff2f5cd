"""Every public image through the `dct` carrier: no wrong bit, the same map, an untouched ROI."""

from __future__ import annotations

import functools
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from benchmarks.images import RING, Sample, dicom_files, fundus, fundus_about, fundus_names, sample
from benchmarks.run import spread
from blessmark.carrier.block_maps import maps_for
from blessmark.carrier.dct import SIDES, cut
from blessmark.embed_dct import embed_dct
from blessmark.errors import CapacityError
from blessmark.extract_dct import extract_dct
from blessmark.fidelity import psnr_db
from blessmark.segment import segmenter
from blessmark.types import BlockSettings
from blessmark.verify import verify

pytestmark = pytest.mark.slow


@dataclass(frozen=True)
class Outcome:
    """What became of one image with blocks of one side; `fault` is empty when everything held."""

    name: str
    side: int
    tier: str
    fault: str = ""
    marked_db: float = 0.0
    restored_db: float = 0.0


def outcomes(found: Sample | None, name: str) -> list[Outcome]:
    return [] if found is None else [_outcome(found, name, side) for side in SIDES]


def _outcome(found: Sample, name: str, side: int) -> Outcome:
    drawer = segmenter(name)
    try:
        done = embed_dct(found.frame, found.about, RING, drawer, BlockSettings(side))
    except CapacityError:
        return Outcome(found.name, side, "no room")
    marked, receipt = done.frame, done.receipt
    verdict = verify(marked, RING, (drawer,), header=found.about.fields)
    alone = extract_dct(marked, RING, (drawer,))
    block_map = maps_for((drawer,), (side,))[0]
    before, after = block_map.bound(found.frame), block_map.bound(marked)
    changed = cut((marked.samples != found.frame.samples).astype(np.int32), side).any(axis=(2, 3, 4))
    places = np.flatnonzero(changed)
    row, col = np.divmod(places, before.free.shape[1])
    original = cut(found.frame.samples, side)[row, col]
    checks = {
        "not authentic": str(verdict.finding) != "authentic",
        "no record": alone is None or alone.record is None,
        "another map": not np.array_equal(before.free, after.free),
        "region of interest touched": not (
            before.free[row, col] & before.stays(places, original).all(axis=1)
        ).all(),
        "restored worse": receipt.restored_psnr_db is not None and receipt.restored_psnr_db < receipt.psnr_db,
    }
    fault = ", ".join(name for name, wrong in checks.items() if wrong)
    assert verdict.restored is not None
    back = psnr_db(found.frame, verdict.restored.samples)
    return Outcome(found.name, side, receipt.tier.name.lower(), fault, receipt.psnr_db, back)


def of_file(path: Path) -> list[Outcome]:
    return outcomes(sample(path), "anatomy")


def of_photograph(data: Path, name: str) -> list[Outcome]:
    image = fundus(data, name)
    return outcomes(Sample(name, "OP", image.frame, fundus_about(name)), "vessels")


def judged(found: list[Outcome]) -> Counter[tuple[int, str]]:
    assert [outcome for outcome in found if outcome.fault] == []
    counts = Counter((outcome.side, outcome.tier) for outcome in found)
    print(sorted(counts.items()))
    return counts


def test_the_image_folder(shared_data):
    counts = judged([each for found in spread(of_file, dicom_files(shared_data)) for each in found])
    assert counts[6, "full"] + counts[6, "core"] + counts[6, "seal"] > 20


def test_the_photographs(shared_data):
    names = fundus_names(shared_data)
    found = spread(functools.partial(of_photograph, shared_data), names)
    counts = judged([each for outcomes_ in found for each in outcomes_])
    assert {tier for _, tier in counts} == {"full"}
    assert sum(counts.values()) == len(SIDES) * len(names)
