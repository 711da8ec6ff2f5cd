"""What becomes of each kind of object, as the code decides it: the tables of the conformance statement.

Nothing is decoded: a data set that only says what it holds is put before the very functions that decide.
`tests/integration/test_every_kind.py` protects an object for every cell, and compares.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from pydicom import uid
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID

from blessmark.pixels.header import object_reason, pixel_reason, read_header
from blessmark.pixels.syntax import LOSSY, NATIVE, written_as
from dicom_node.dimse.contexts import STORAGE_CLASSES, TRANSFER_SYNTAXES

#: in place of a reason: what happens to the pixels of an image that is marked
IN_PLACE, KEPT = "in place", "same syntax"
#: where there are no such objects: JPEG Baseline has samples of 8 bits (PS3.5 A.4.1)
IMPOSSIBLE = "none exist"
#: syntaxes whose objects name a server that has the pixels (PS3.5 A.6, A.7)
JPIP = frozenset(f"1.2.840.10008.1.2.4.{number}" for number in (94, 95, 204, 205))


@dataclass(frozen=True, slots=True)
class Kind:
    """Pixels of one kind (PS3.3 C.7.6.3)."""

    allocated: int
    stored: int
    photometric: str = "MONOCHROME2"
    signed: bool = False

    @property
    def channels(self) -> int:
        return 1 if self.photometric.startswith(("MONO", "PALETTE")) else 3


KINDS: Mapping[str, Kind] = {
    "grey 8": Kind(8, 8),
    "grey 12": Kind(16, 12),
    "grey 16 signed": Kind(16, 16, signed=True),
    "RGB 8": Kind(8, 8, "RGB"),
    "YBR_FULL 8": Kind(8, 8, "YBR_FULL"),
    "YBR_FULL_422": Kind(8, 8, "YBR_FULL_422"),
    "palette": Kind(8, 8, "PALETTE COLOR"),
    "1 bit": Kind(1, 1),
}

#: words in the name of a class whose objects hold pixels, and of one that only sounds like it
_IMAGES = re.compile(
    r"Image|^Segmentation|Label Ma|Height Ma|RT Dose |Parametric Map|Thickness Map|Topography Map"
    r"|US Volume|Volume Analysis"
)
_NO_IMAGES = re.compile(r"Surface|Radiation|Presentation State")


def described(sop_class: str, syntax: str, kind: Kind) -> Dataset:
    """A data set that says it holds such pixels, or refers to them."""
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = UID(syntax)
    ds.SOPClassUID, ds.Rows, ds.Columns = UID(sop_class), 64, 64
    ds.BitsAllocated, ds.BitsStored, ds.HighBit = kind.allocated, kind.stored, kind.stored - 1
    ds.PixelRepresentation, ds.SamplesPerPixel = int(kind.signed), kind.channels
    ds.PhotometricInterpretation = kind.photometric
    if kind.channels == 3:
        ds.PlanarConfiguration = 0
    if syntax in JPIP:
        ds.add_new(0x00287FE0, "UR", "")
    else:
        ds.add_new(0x7FE00010, "OW", b"")
    return ds


def fate(sop_class: str, syntax: str, kind: Kind) -> str:
    """A reason code, `in place`, `same syntax`, `none exist`, or the name of the syntax that is written."""
    if syntax == uid.JPEGBaseline8Bit and kind.stored > 8:
        return IMPOSSIBLE
    ds = described(sop_class, syntax, kind)
    reason = object_reason(ds) or pixel_reason(ds, read_header(ds))
    if reason is not None:
        return f"`{reason}`"
    if syntax in NATIVE:
        return IN_PLACE
    target = written_as(syntax)
    return KEPT if target == syntax else UID(target).name.replace(" Image Compression", "")


def name_of(sop_class: str) -> str:
    """The name of a class; where the installed dictionary has none, its keyword in words."""
    name = UID(sop_class).name
    return name if name != sop_class else re.sub(r"(?<=[a-z])(?=[A-Z])", " ", STORAGE_CLASSES[sop_class])


def holds_pixels(sop_class: str) -> bool:
    """Whether objects of a class are images of some kind, judged by the standard's name of it."""
    name = name_of(sop_class)
    return _IMAGES.search(name) is not None and _NO_IMAGES.search(name) is None


def of_class(sop_class: str) -> str:
    """What becomes of the usual object of a class, whatever its transfer syntax."""
    if name_of(sop_class).startswith("Encapsulated"):
        return "`encapsulated-document`"
    if not holds_pixels(sop_class):
        return "`no-pixel-data`"
    found = fate(sop_class, uid.ExplicitVRLittleEndian, KINDS["grey 12"])
    return "by its pixels, as above" if found == IN_PLACE else found


def syntax_rows() -> Iterable[tuple[str, ...]]:
    """Transfer syntaxes with the same fate in one row; what every kind of pixels meets there."""
    groups: dict[tuple[str, ...], list[str]] = {}
    for syntax in TRANSFER_SYNTAXES:
        fates = tuple(fate(uid.SecondaryCaptureImageStorage, syntax, kind) for kind in KINDS.values())
        groups.setdefault((*fates, "lossy" if syntax in LOSSY else ""), []).append(UID(syntax).name)
    for (*fates, lossy), names in groups.items():
        yield ", ".join(names) + (" (lossy)" if lossy else ""), *fates


def class_rows() -> Iterable[tuple[str, str]]:
    """What becomes of each SOP class, those with one fate together."""
    groups: dict[str, list[str]] = {}
    for sop_class in STORAGE_CLASSES:
        groups.setdefault(of_class(sop_class), []).append(name_of(sop_class).replace(" Storage", ""))
    for found, names in sorted(groups.items(), key=lambda group: -len(group[1])):
        yield found, ", ".join(sorted(names))
