"""Objects in another transfer syntax: equal value by value, sample by sample, mark by mark."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom import dcmread, uid
from pydicom.dataset import Dataset
from pydicom.filewriter import dcmwrite
from pydicom.uid import RLELossless

from blessmark import pixels
from blessmark.errors import PixelError
from blessmark.payload.record import FULL_FIELDS
from blessmark.segment import segmenter
from dicom_node import header
from dicom_node.convert import Form, converted, recoded
from dicom_node.errors import InputError
from dicom_node.protect import Site, protect, written
from dicom_node.review import Reader, recover, review
from tests import builders
from tests.builders import COLOUR_8, Encoding, dataset, file_bytes, phantom
from tests.strategies import RING

EXPLICIT, IMPLICIT = str(uid.ExplicitVRLittleEndian), str(uid.ImplicitVRLittleEndian)
TARGETS = (EXPLICIT, IMPLICIT)
E, I, B = Form(implicit=False), Form(implicit=True), Form(implicit=False, little=False)  # noqa: E741


def file_of(folder: Path, content: bytes) -> Path:
    path = folder / "object.dcm"
    path.write_bytes(content)
    return path


def made(path: Path, target: str) -> Dataset:
    return dcmread(io.BytesIO(b"".join(converted(path, target))))


def values(ds: Dataset, place: tuple[object, ...] = ()) -> dict[tuple[object, ...], bytes | None]:
    """Every value of a data set, sequences walked, as bytes in little endian."""
    found: dict[tuple[object, ...], bytes | None] = {}
    for tag in ds.keys():  # noqa: SIM118 - iterating decodes
        if header.value_representation(ds, tag) == "SQ":
            found[(*place, tag)] = None
            for number, item in enumerate(ds[tag].value):
                found |= values(item, (*place, tag, number))
        else:
            found[(*place, tag)] = header.value_bytes(ds, tag)
    return found


def rich(syntax: str = EXPLICIT) -> Dataset:
    """An object with everything that encodings differ in."""
    samples = phantom(16, 16, hi=4095)
    ds = dataset(samples, Encoding(syntax=syntax), PatientName="Phantom^Ümläut", SmallestImagePixelValue=3)
    ds.SpecificCharacterSet = "ISO_IR 100"
    inner, leaf = Dataset(), Dataset()
    leaf.CodeValue, leaf.CodeMeaning = "1", "leaf"
    inner.PurposeOfReferenceCodeSequence = [leaf]
    inner.add_new(0x00081160, "IS", "1")
    ds.SourceImageSequence = [inner, Dataset()]
    ds.ReferencedStudySequence = []
    ds.LUTDescriptor = [3, 0, 16]
    ds.add_new(0x00283006, "OW", struct.pack("<3H", 1, 2, 3))
    ds.FloatPixelPaddingValue = 1.5
    ds.FrameIncrementPointer = [0x00181063, 0x00181065]
    ds.TextComments = "a text"
    block = ds.private_block(0x0099, "SOME TEST", create=True)
    block.add_new(0x01, "FD", 2.5)
    block.add_new(0x02, "LO", "private")
    return ds


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("syntax", [EXPLICIT, IMPLICIT, str(uid.DeflatedExplicitVRLittleEndian)])
def test_every_value_stays_byte_for_byte(tmp_path: Path, syntax: str, target: str) -> None:
    path = file_of(tmp_path, file_bytes(rich(syntax)))
    back = made(path, target)
    assert back.file_meta.TransferSyntaxUID == target
    assert back.file_meta.MediaStorageSOPInstanceUID == dcmread(path).file_meta.MediaStorageSOPInstanceUID
    assert values(back) == values(dcmread(path))


@pytest.mark.parametrize("target", TARGETS)
def test_numbers_out_of_big_endian(tmp_path: Path, target: str) -> None:
    ds = rich(str(uid.ExplicitVRBigEndian))
    ds[0x00283006].value = struct.pack(">3H", 1, 2, 3)
    path = file_of(tmp_path, file_bytes(ds))
    back, source = made(path, target), dcmread(path)
    assert values(back) == values(source)
    assert back.FloatPixelPaddingValue == 1.5
    assert back.FrameIncrementPointer == [0x00181063, 0x00181065]
    found, expected = (pixels.load(pixels.read(each)) for each in (b"".join(converted(path, target)), path))
    assert isinstance(found, pixels.Image)
    assert isinstance(expected, pixels.Image)
    assert np.array_equal(found.words.astype("i4"), expected.words.astype("i4"))


def test_there_and_back_gives_the_same_bytes(tmp_path: Path) -> None:
    """From Explicit to Implicit and back only what Implicit does not tell, private VRs, is lost."""
    ds = rich()
    del ds[0x00990010], ds[0x00991001], ds[0x00991002]
    path = file_of(tmp_path, b"".join(converted(file_of(tmp_path, file_bytes(ds)), IMPLICIT)))
    there = made(path, EXPLICIT)
    again = file_of(tmp_path, b"".join(converted(path, EXPLICIT)))
    assert {tag: there[tag].VR for tag in there.keys()} == {tag: ds[tag].VR for tag in ds.keys()}  # noqa: SIM118
    assert values(dcmread(again)) == values(ds)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize(
    ("encoding", "channels"),
    [
        (Encoding(syntax=uid.RLELossless), 1),
        (Encoding(syntax=uid.JPEGLSLossless), 1),
        (Encoding(syntax=uid.JPEG2000Lossless), 1),
        (Encoding(syntax=uid.JPEGLosslessSV1), 1),
        (Encoding(bits_stored=8, bits_allocated=8, photometric="RGB", syntax=uid.RLELossless, planar=1), 3),
        (
            Encoding(
                bits_stored=8, bits_allocated=8, photometric="YBR_FULL_422", syntax=uid.JPEGBaseline8Bit
            ),
            3,
        ),
    ],
    ids=["rle", "jpeg-ls", "jpeg-2000", "jpeg-lossless", "rle-rgb", "jpeg"],
)
def test_compressed_objects_have_the_same_samples(
    tmp_path: Path, encoding: Encoding, channels: int, target: str
) -> None:
    ds = dataset(phantom(64, 64, frames=2, channels=channels, hi=encoding.hi), encoding)
    path = file_of(tmp_path, file_bytes(ds))
    content = b"".join(converted(path, target))
    before, after = pixels.load(pixels.read(path)), pixels.load(pixels.read(content))
    assert isinstance(before, pixels.Image)
    assert isinstance(after, pixels.Image)
    assert np.array_equal(before.words, after.words)
    assert dcmread(io.BytesIO(content)).get("LossyImageCompression") == (
        "01" if encoding.syntax == uid.JPEGBaseline8Bit else None
    )


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize(
    "syntax", [EXPLICIT, IMPLICIT, uid.JPEGLSLossless, uid.RLELossless, uid.JPEGBaseline8Bit]
)
def test_a_watermark_survives_and_the_original_comes_back(tmp_path: Path, syntax: str, target: str) -> None:
    bits = 8 if syntax == uid.JPEGBaseline8Bit else 12
    encoding = Encoding(bits_stored=bits, bits_allocated=8 if bits == 8 else 16, syntax=syntax)
    original = dataset(phantom(256, 192, hi=encoding.hi), encoding, PatientName="Phantom^Test", PatientID="1")
    ds = pixels.read(file_bytes(original))
    site = Site("node-1", RING, segmenter("anatomy"), FULL_FIELDS)
    assert protect(ds, site, 1_790_000_000).result == "protected"
    path = file_of(tmp_path, written(ds))
    moved = pixels.read(b"".join(converted(path, target)))
    reader = Reader(RING, (segmenter("anatomy"),))
    assert str(review(moved, "x", reader).finding) == "authentic"
    assert recover(moved, "x", reader).restored
    assert np.array_equal(
        pixels.load(moved).words,  # type: ignore[union-attr]
        pixels.load(pixels.read(file_bytes(original))).words,  # type: ignore[union-attr]
    )


def element(tag: int, vr: bytes, value: bytes, *, length: int | None = None, order: str = "<") -> bytes:
    """Explicit VR."""
    size = len(value) if length is None else length
    head = struct.pack(f"{order}HH", tag >> 16, tag & 0xFFFF) + vr
    long = vr in (b"OB", b"OW", b"SQ", b"UN", b"UT")
    return head + (struct.pack(f"{order}2xI", size) if long else struct.pack(f"{order}H", size)) + value


def implied(tag: int, value: bytes, *, length: int | None = None) -> bytes:
    """Implicit VR."""
    return struct.pack("<HHI", tag >> 16, tag & 0xFFFF, len(value) if length is None else length) + value


def run(content: bytes, given_form: Form, wanted: Form) -> bytes:
    return b"".join(recoded(io.BytesIO(content), given_form, wanted))


OPEN = 0xFFFFFFFF
ITEM, ITEM_END, SEQUENCE_END = (
    implied(0xFFFEE000, b"", length=OPEN),
    implied(0xFFFEE00D, b""),
    implied(0xFFFEE0DD, b""),
)


def test_group_lengths_go_and_the_rest_stays() -> None:
    content = element(0x00080000, b"UL", b"\4\0\0\0") + element(0x00080060, b"CS", b"CT")
    assert run(content, E, I) == implied(0x00080060, b"CT")


def test_what_nobody_knows_travels_as_unknown() -> None:
    content = implied(0x00110010, b"MAKER ") + implied(0x00111001, b"\1\2") + implied(0x00020999, b"xy")
    expected = (
        element(0x00110010, b"LO", b"MAKER ")
        + element(0x00111001, b"UN", b"\1\2")
        + element(0x00020999, b"UN", b"xy")
    )
    assert run(content, I, E) == expected
    assert run(expected, E, I) == content


def test_a_value_too_long_for_its_vr() -> None:
    long = b"1\\" * 40000
    assert run(implied(0x00281101, long), I, E).startswith(element(0x00281101, b"UN", b"", length=len(long)))


@pytest.mark.parametrize(
    ("signed", "bits", "tag", "vr"),
    [
        (0, 16, 0x00280106, b"US"),
        (1, 16, 0x00280106, b"SS"),
        (0, 16, 0x7FE00010, b"OW"),
        (0, 8, 0x7FE00010, b"OB"),
        (0, 16, 0x60003000, b"OW"),
    ],
)
def test_vrs_that_depend_on_the_pixels(signed: int, bits: int, tag: int, vr: bytes) -> None:
    head = implied(0x00280100, struct.pack("<H", bits)) + implied(0x00280103, struct.pack("<H", signed))
    assert run(head + implied(tag, b"\1\2"), I, E).endswith(element(tag, vr, b"\1\2"))


def test_private_and_unknown_sequences_of_open_length() -> None:
    """In Implicit only a sequence leaves its length open; as UN its content is Implicit wherever it lies."""
    inside = ITEM + implied(0x00111002, b"ab") + ITEM_END + SEQUENCE_END
    plain = implied(0x00111001, inside, length=OPEN)
    explicit_inside = ITEM + element(0x00111002, b"UN", b"ab") + ITEM_END + SEQUENCE_END
    assert run(plain, I, E) == element(0x00111001, b"SQ", explicit_inside, length=OPEN)
    unknown = element(0x00111001, b"UN", inside, length=OPEN)
    assert run(unknown, E, E) == unknown
    assert run(unknown, E, I) == plain


@pytest.mark.parametrize(
    ("content", "form", "said"),
    [
        (implied(0x00080060, b"C", length=2), I, "ends within an element"),
        (b"\x08\x00", I, "ends within an element"),
        (element(0x00080060, b"cs", b"CT"), E, "no VR"),
        (implied(0x00081140, ITEM, length=OPEN), I, "ends within an element"),
        (implied(0x00081140, implied(0x00080060, b"CT"), length=OPEN), I, "something other than items"),
        (
            implied(
                0x00081140,
                implied(0xFFFEE000, b"", length=4) + b"\x08\x00\x60\x00\x02\x00\x00\x00CT",
                length=8,
            ),
            I,
            "longer or shorter",
        ),
        (
            implied(0x00081140, implied(0xFFFEE000, b"", length=0), length=12) + bytes(4),
            I,
            "ends within|something other",
        ),
        (ITEM_END, I, "outside of a sequence"),
        (element(0x7FE00010, b"OB", b"", length=OPEN), E, "compressed in an uncompressed"),
        (element(0x00111001, b"UN", b"\1\2", order=">"), B, "cannot be taken out of big endian"),
        (element(0x00280010, b"US", b"\1", order=">"), B, "no whole numbers"),
        (b"".join(implied(0x00081140, ITEM, length=OPEN) for _ in range(70)), I, "nested more than"),
    ],
)
def test_what_is_broken_is_refused(content: bytes, form: Form, said: str) -> None:
    with pytest.raises(InputError, match=said):
        run(content, form, E if form is I else I)


def test_what_is_no_dicom_file_or_cut_short(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="DICM"):
        list(converted(file_of(tmp_path, bytes(200)), EXPLICIT))
    whole = file_bytes(rich(str(uid.DeflatedExplicitVRLittleEndian)))
    for broken, said in ((whole[:-40], "cut short"), (whole[:-40] + b"\xff" * 40, r"broken|cut short|no VR")):
        with pytest.raises(InputError, match=said):
            list(converted(file_of(tmp_path, broken), IMPLICIT))
    compressed = file_bytes(dataset(phantom(64, 64), Encoding(syntax=RLELossless)))
    with pytest.raises(PixelError):
        list(converted(file_of(tmp_path, compressed[:-500]), EXPLICIT))


def test_a_large_object_passes_in_pieces(tmp_path: Path) -> None:
    ds = dataset(np.zeros((8, 1, 512, 1024), np.int32))
    path = file_of(tmp_path, file_bytes(ds))
    sizes = [len(piece) for piece in converted(path, IMPLICIT)]
    assert max(sizes) <= 1 << 20
    assert sum(sizes) > 8_000_000


_TEXT = st.text(st.characters(min_codepoint=32, max_codepoint=126, exclude_characters="\\"), max_size=16)
_FIELDS = st.lists(
    st.tuples(st.sampled_from(["Manufacturer", "StationName", "Rows", "ImageComments"]), _TEXT)
)


def _build(fields: list[tuple[str, str]], items: list[Dataset]) -> Dataset:
    ds = Dataset()
    for keyword, content in fields:
        setattr(ds, keyword, len(content) if keyword == "Rows" else content.strip())
    if items:
        ds.ReferencedImageSequence = items
    return ds


_DATA_SETS = st.recursive(
    st.builds(_build, _FIELDS, st.just([])),
    lambda inner: st.builds(_build, _FIELDS, st.lists(inner, max_size=2)),
    max_leaves=6,
)


@given(_DATA_SETS, st.booleans())
def test_any_nesting_comes_back(ds: Dataset, undefined: bool) -> None:
    if "ReferencedImageSequence" in ds:
        ds["ReferencedImageSequence"].is_undefined_length = undefined
    contents = {}
    for implicit in (True, False):
        buffer = io.BytesIO()
        dcmwrite(buffer, ds, implicit_vr=implicit, little_endian=True)
        contents[implicit] = buffer.getvalue()
    there = run(contents[False], E, I)
    assert run(contents[True], I, I) == there
    assert run(there, I, E) == run(contents[False], E, E)


def test_deflated_is_only_inflated(tmp_path: Path) -> None:
    path = file_of(tmp_path, file_bytes(rich(str(uid.DeflatedExplicitVRLittleEndian))))
    content = path.read_bytes()
    start = 144 + int.from_bytes(content[140:144], "little")
    inflated = zlib.decompress(content[start:], -zlib.MAX_WBITS)
    assert b"".join(converted(path, EXPLICIT)).endswith(inflated)


def test_colour_by_plane_is_written_by_pixel(tmp_path: Path) -> None:
    ds = builders.secondary_capture(32, 32)
    encoding = Encoding(
        **{
            **{n: getattr(COLOUR_8, n) for n in COLOUR_8.__dataclass_fields__},
            "syntax": RLELossless,
            "planar": 1,
        }
    )
    compressed = dataset(phantom(32, 32, channels=3, hi=255), encoding)
    back = made(file_of(tmp_path, file_bytes(compressed)), EXPLICIT)
    assert back.PlanarConfiguration == 0
    assert back.PixelData == ds.PixelData
