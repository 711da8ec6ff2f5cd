"""Orthanc renders every output whose input it renders.

Debian's Orthanc 1.10.1 has no JPEG 2000 decoder and answers 415 to previews of 16-bit colour and of
uncompressed YBR_FULL, of the inputs as of the outputs. Of each long series of the image folder two files
are shown (`thinned`).
"""

from __future__ import annotations

import urllib.error
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.images import RING, dicom_files, thinned
from benchmarks.journeys import public_files
from blessmark import pixels
from blessmark.errors import WatermarkError
from blessmark.payload.record import FULL_FIELDS
from blessmark.segment import segmenter
from dicom_node.config import Deidentify, Profile
from dicom_node.errors import NodeError
from dicom_node.protect import Site, protect, written
from tests.interop import peers

pytestmark = [pytest.mark.interop, pytest.mark.slow]

_PLAIN = Site("test", RING, segmenter("anatomy"), FULL_FIELDS)
_ROUTES = {"plain": _PLAIN, "de-identified": replace(_PLAIN, deidentify=Deidentify(profile=Profile.BASIC))}
_LARGEST_BYTES = 1_500_000


def rendered(peer: peers.Orthanc, content: bytes) -> bool:
    """Whether the instance can be stored and previewed; it is gone afterwards."""
    try:
        instance = peer.store(content)
    except urllib.error.HTTPError:
        return False
    try:
        return len(peer.preview(instance)) > 0
    except urllib.error.HTTPError:
        return False
    finally:
        peer.remove(instance)


def judged(files: list[Path], site: Site, folder: Path) -> None:
    seen: Counter[tuple[bool, bool]] = Counter()
    worse = []
    with peers.orthanc(folder) as peer:
        for path in files:
            if path.stat().st_size > _LARGEST_BYTES:
                continue
            try:
                ds = pixels.read(path)
                changed = protect(ds, site, 1_790_000_000).changed
            except (WatermarkError, NodeError):
                continue
            if not changed:
                continue
            pair = rendered(peer, path.read_bytes()), rendered(peer, written(ds))
            seen[pair] += 1
            if pair == (True, False):
                worse.append(path.name)
    assert worse == []
    assert seen[True, True] > 40


@pytest.mark.parametrize("route", _ROUTES)
def test_the_image_folder(shared_data, tmp_path, route):
    judged(thinned(dicom_files(shared_data)), _ROUTES[route], tmp_path / "orthanc")


@pytest.mark.parametrize("route", _ROUTES)
def test_the_files_that_pydicom_tests_itself_with(tmp_path, route):
    judged(public_files(), _ROUTES[route], tmp_path / "orthanc")
