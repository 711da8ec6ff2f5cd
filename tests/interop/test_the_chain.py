"""Two hospitals over a public PACS, with real peers: what was sent arrives, and what was changed does not."""

from __future__ import annotations

import os
import re
from collections import Counter
from pathlib import Path

import pydicom.data
import pytest

from benchmarks.images import Sample, sample
from benchmarks.tampering import attacks_on
from blessmark import pixels
from blessmark.types import Frame, IntArray
from dicom_node.keys import FileKeyRing
from dicom_node.protect import written
from tests.interop.chain import BYTES, VALUES, Line, Thing, chain, corpus, ledger

pytestmark = [pytest.mark.interop, pytest.mark.slow]

VARIANTS = {
    "as it is": "",
    "new UIDs": ", uids: derive",
    "de-identified": ", deidentify: {profile: basic}",
    "de-identified, much retained": ", deidentify: {profile: basic, retain: [uids, device], dates: modify}",
}
#: what may become of an object other than to arrive as it was, and why it is no fault of the nodes
_EXCEPTIONS = (
    # the first node: it is no DICOM; or de-identifying cannot clean it, or cannot decode it
    r"refused with (C000|0117)",
    r"sender holds: (burned-in-annotation|recognizable-features|encapsulated-document|pixels-as-they-came)",
    r"sender holds: (PixelError|InputError)",
    # Orthanc: no Patient ID, study or series; a class or an encoding that it does not take
    r"(public|archive|dcmtk): (status-a700|status-c000|no-context)",
    # DCMTK, within Orthanc, drops Data Set Trailing Padding and private elements without a creator
    r"differs:( FFFCFFFC| 0005\w{4})+",
)
#: of neighbours in a folder, mostly slices of one series, one in so many; WHOLE_CORPUS=1 takes all of them
_STEP = 1 if os.environ.get("WHOLE_CORPUS") else 7


def _things(shared_data: Path) -> list[Thing]:
    """What is sent: images and other objects of two collections, each UID once."""
    both = [*corpus(Path(pydicom.data.__path__[0])), *corpus(shared_data / "dicom")]
    return list({thing.uid: thing for thing in both}.values())


@pytest.mark.parametrize("variant", VARIANTS)
def test_what_was_sent_arrives(shared_data: Path, tmp_path: Path, variant: str) -> None:
    """Byte for byte, or value for value where something on the way wrote it anew; always every sample."""
    things = _things(shared_data)
    assert len(things) > 300
    things = things[::_STEP]
    with chain(tmp_path, VARIANTS[variant]) as line:
        line.send(things)
        line.forward()
        at_dcmtk, at_orthanc = line.fates(things, line.at_dcmtk()), line.fates(things, line.at_archive())
        with ledger(line.receiver) as book:
            judged = {finding for (_, finding), count in book.verdicts().items() if count}
    strange = {
        thing.name: fate
        for fates in (at_dcmtk, at_orthanc)
        for thing, fate in zip(things, fates.values(), strict=True)
        if fate not in (BYTES, VALUES) and not re.fullmatch("|".join(_EXCEPTIONS), fate)
    }
    assert strange == {}
    assert judged <= {"authentic", "not-judged"}
    counts = Counter(at_dcmtk.values())
    assert counts[BYTES] + counts[VALUES] > 0.75 * len(things), counts
    assert counts[BYTES] > 0.4 * len(things), counts


#: an image, and the one whose parts go into it
_ATTACKED = (
    ("ct_head/10.dcm", "ct_head/11.dcm"),
    ("mr_structural/N2D_0081.dcm", "mr_structural/N2D_0085.dcm"),
)


@pytest.mark.parametrize("pair", _ATTACKED, ids=["CT, in Orthanc", "MR, by another sender"])
def test_what_was_changed_on_its_way_goes_no_further(
    shared_data: Path, tmp_path: Path, pair: tuple[str, str]
) -> None:
    """Every attack of the benchmark, under the image's own UID: held, counted, and at no archive."""
    paths = [shared_data / "dicom" / name for name in pair]
    sent = {thing.name: thing for thing in corpus(paths[0].parent)}
    with chain(tmp_path, "") as line:
        line.send([sent[path.name] for path in paths])
        marked = {_uid(content): content for content in map(line.public.file, line.public.instances())}
        files = [marked[sent[path.name].uid] for path in paths]
        attacks = _attacks(line, paths, files)
        assert len(attacks) >= 9, sorted(attacks)
        for samples in attacks.values():
            _arrive(line, _with_samples(files[0], samples), in_orthanc=pair is _ATTACKED[0])
        with ledger(line.receiver) as book:
            held, verdicts = book.held(), book.verdicts()
        assert line.at_dcmtk() == {}
        assert line.archive.instances() == []
    assert len(held) == len(attacks)
    assert {kept.result for kept in held} == {"held"}
    assert sum(verdicts.values()) == len(attacks)
    assert verdicts.get(("all", "authentic"), 0) == 0
    assert line.receiver.log.read_text().count(" warning processed ") == len(attacks)


def _attacks(line: Line, paths: list[Path], files: list[bytes]) -> dict[str, IntArray]:
    ring = FileKeyRing.load(line.sender.keys)
    originals = [_sample(path) for path in paths]
    frames = [_frame(content) for content in files]
    return attacks_on((originals[0], frames[0]), (originals[1], frames[1]), ring, seed=0)


def _sample(path: Path) -> Sample:
    found = sample(path)
    assert found is not None
    return found


def _frame(content: bytes) -> Frame:
    image = pixels.load(pixels.read(content))
    assert isinstance(image, pixels.Image)
    return image.frame(1)


def _with_samples(content: bytes, samples: IntArray) -> bytes:
    ds = pixels.read(content)
    image = pixels.load(ds)
    assert isinstance(image, pixels.Image)
    pixels.store(ds, image, [samples])
    return written(ds)


def _arrive(line: Line, content: bytes, *, in_orthanc: bool) -> None:
    """The object comes to the receiver: from the public archive, where it took the place of the true one."""
    if not in_orthanc:
        line.send_to_receiver(content)
        return
    for instance in line.public.instances():
        line.public.remove(instance)
    line.forward([line.public.store(content)])


def _uid(content: bytes) -> str:
    return str(pixels.read(content).SOPInstanceUID)
