"""Records as bytes: layout, exactness, sizes, the digests they hold."""

from __future__ import annotations

import hashlib
import random
import struct
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest

from blessmark.errors import RecordError
from blessmark.payload import crypto, record
from blessmark.payload.record import CORE_FIELDS, FULL_FIELDS, Grid, decode, encode, reduce
from blessmark.types import Frame, Record, SiteKey, Tier

UID = b"1.2.826.0.1.3680043.8.498.40154512785431221212345678901234567890"
FIELDS = {
    0x00100010: b"Example^Anna ",
    0x00100020: b"EX-00417",
    0x00100030: b"19680229",
    0x00100040: b"F ",
    0x00080020: b"20240131",
    0x00080030: b"131415.250000 ",
    0x00080050: b"A2024013100",
    0x00080060: b"CT",
    0x00080080: b"Example University Hospital ",
    0x00080090: b"",
    0x0020000D: UID[:-4] + b"10.0",
    0x0020000E: UID[:-4] + b"20.7",
    0x00080018: UID,
}
RECORD = Record(
    tier=Tier.FULL,
    pixel_digest=bytes(range(16)),
    uid_digest=record.uid_digest(UID.decode()),
    frame=2,
    frames=3,
    time_s=1_790_000_000,
    node="node-1",
    segmenter="anatomy/1",
    charset=b"ISO_IR 192",
    fields=FIELDS,
    digests=b"\xab\xcd",
)
SEAL = reduce(RECORD, Tier.SEAL)


def with_fields(fields: dict[int, bytes]) -> Record:
    digest = record.uid_digest(fields.get(0x00080018, b"none").decode("utf-8", "surrogateescape"))
    return replace(RECORD, fields=fields, uid_digest=digest)


def bits(of: Record) -> int:
    return 8 * (crypto.TAG_BYTES + len(encode(of)))


@pytest.mark.parametrize("tier", Tier)
def test_a_record_comes_back(tier: Tier) -> None:
    sent = reduce(RECORD, tier)
    assert decode(encode(sent), 2) == sent


@pytest.mark.parametrize("tier", Tier)
def test_messages_fill_whole_shards(tier: Tier) -> None:
    assert (crypto.TAG_BYTES + len(encode(reduce(RECORD, tier)))) % 6 == 0


def test_the_layout_is_the_documented_one() -> None:
    seal = bytes([0x12]) + bytes(range(16)) + record.uid_digest(UID.decode())
    assert encode(SEAL) == seal + b"\0"
    head = bytes([0x10]) + bytes(range(16)) + (1_790_000_000).to_bytes(4) + b"\x02\xab\xcd"
    assert encode(RECORD).startswith(head)


def test_format_v1_does_not_drift() -> None:
    """A frozen answer: if it changes, old images can no longer be read."""
    assert (
        hashlib.sha256(encode(replace(RECORD, digests=b""))).hexdigest()
        == "259bf2514cb86efe1469e3ae7802c0d4f7466184217598670c88a7cdc1267c54"
    )


def test_the_frame_number_is_the_callers() -> None:
    assert decode(encode(RECORD), 9).frame == 9


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b" ",
        b"  ",
        b"\0",
        b"\0\0",
        b"2024",
        b"20240230",
        b"00000000",
        b"2024.01.31",
        b"1.2.3\0",
        b"1.2.3 ",
        b"01.2..3.",
        b"odd",
        b"trailing   ",
        bytes(range(256)),
        "山田^太郎".encode("iso2022_jp"),
        "Müller^Jürgen".encode(),
    ],
)
def test_any_bytes_in_any_field_come_back_exactly(value: bytes) -> None:
    for tag in (*FULL_FIELDS, 0x00081030, 0x00091001, 0xFFFFFFFF, 0):
        sent = with_fields({**FIELDS, tag: value})
        assert decode(encode(sent), 2) == sent


def test_an_absent_field_is_not_an_empty_one() -> None:
    assert decode(encode(with_fields({})), 2).fields == {}
    assert decode(encode(with_fields({0x00100010: b""})), 2).fields == {0x00100010: b""}


def test_a_uid_digest_that_the_fields_do_not_tell_is_kept() -> None:
    for fields in (FIELDS, {}):
        sent = replace(RECORD, uid_digest=b"differs!", fields=fields)
        assert decode(encode(sent), 2) == sent


@pytest.mark.parametrize(
    "wrong",
    [
        replace(RECORD, pixel_digest=bytes(15)),
        replace(SEAL, uid_digest=bytes(9)),
        replace(RECORD, digests=bytes(256)),
        replace(RECORD, time_s=-1),
        replace(RECORD, time_s=1 << 32),
        replace(RECORD, frames=0),
        replace(RECORD, fields={1 << 32: b""}),
        replace(RECORD, fields={-1: b""}),
        replace(RECORD, node="\ud800"),
        replace(RECORD, fields={0x00100010: bytes(20_000)}),
    ],
)
def test_what_has_no_place_in_the_format_is_refused(wrong: Record) -> None:
    with pytest.raises(RecordError):
        encode(wrong)


def test_every_cut_and_every_unknown_kind_is_an_error() -> None:
    plaintext = encode(RECORD).rstrip(b"\0")
    for length in range(24):
        with pytest.raises(RecordError, match="ends early"):
            decode(plaintext[:length], 1)
    for kind in (0x00, 0x13, 0x20, 0xFF):
        with pytest.raises(RecordError, match=f"0x{kind:02x}"):
            decode(bytes([kind]) + plaintext[1:], 1)


@pytest.mark.parametrize("sent", [RECORD, SEAL])
def test_padding_must_be_zero(sent: Record) -> None:
    plaintext = encode(sent)
    assert decode(plaintext + bytes(6), 2) == sent
    with pytest.raises(RecordError):
        decode(plaintext + b"\0\0\0\0\0\1", 2)


def test_noise_is_a_record_error_or_a_record() -> None:
    """Whatever authenticates has been written by a key holder, who may still run another version."""
    noise = random.Random(5)
    for _ in range(150):
        content = bytearray(encode(RECORD) if noise.random() < 0.5 else noise.randbytes(noise.randrange(300)))
        for _ in range(noise.randrange(4) if content else 0):
            content[noise.randrange(len(content))] = noise.randrange(256)
        try:
            found = decode(bytes(content), 1)
        except RecordError:
            continue
        assert isinstance(found, Record)


def test_errors_never_quote_the_record() -> None:
    with pytest.raises(RecordError) as caught:
        encode(replace(RECORD, fields={0x00100010: b"Secret^Name " * 2000}))
    assert "Secret" not in str(caught.value)


def test_repeated_unknown_and_absent_extra_fields_are_errors() -> None:
    def forged(*numbers: int, present: bool = True) -> bytes:
        encoder = record.Encoder()
        encoder.number(0)
        encoder.choice(0, (8, 55, 1))
        encoder.text(record.Kind.NODE, b"")
        encoder.text(record.Kind.SEGMENTER, b"")
        for _ in FULL_FIELDS:
            encoder.choice(0, (8, 55, 1))
        for number in numbers:
            encoder.choice(1, (15, 1))
            encoder.uniform(number, 64)
            encoder.choice(int(present), (8, 55, 1))
            encoder.text(record.Kind.AGE, b"")
        return bytes([0x10]) + bytes(21) + encoder.finish()

    for content in (forged(5, 5), forged(62), forged(5, present=False)):
        with pytest.raises(RecordError):
            decode(content, 1)


def test_a_tag_that_is_spelled_out_reads_the_same_when_the_table_has_grown(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its writer did not know the tag and coded its value as `OTHER`; an appended row must not alter that."""
    sent = with_fields({**FIELDS, 0x00091001: b"1.2.840.10008.1\0"})
    plaintext = encode(sent)
    table = {**record._TABLE, 0x00091001: record.Kind.UID}
    monkeypatch.setattr(record, "_TABLE", table)
    monkeypatch.setattr(record, "_TAGS", tuple(table))
    monkeypatch.setattr(record, "_NUMBERS", {tag: number for number, tag in enumerate(table)})
    assert decode(plaintext, 2) == sent
    assert decode(encode(sent), 2) == sent
    assert encode(sent) != plaintext


def test_reduce_keeps_what_the_tier_says() -> None:
    core = reduce(RECORD, Tier.CORE)
    assert core.fields.keys() == set(CORE_FIELDS)
    assert (core.digests, core.node, core.time_s, core.frames) == (b"", "node-1", RECORD.time_s, 3)
    assert (
        Record(Tier.SEAL, RECORD.pixel_digest, RECORD.uid_digest, 2, 0, 0)
        == reduce(core, Tier.SEAL)
        == reduce(RECORD, Tier.SEAL)
    )
    assert reduce(RECORD, Tier.FULL) is RECORD
    with pytest.raises(RecordError, match="SEAL record cannot become a CORE"):
        reduce(SEAL, Tier.CORE)


def test_sizes_of_an_ordinary_record() -> None:
    assert bits(replace(RECORD, digests=b"")) <= 1100
    assert bits(reduce(RECORD, Tier.CORE)) <= 850
    assert bits(SEAL) == 336


def test_values_unlike_any_header_cost_little_more_than_their_bytes() -> None:
    noise = random.Random(6)
    fields = {tag: noise.randbytes(64) for tag in FULL_FIELDS}
    assert bits(with_fields(fields)) <= 8 * (64 * len(FULL_FIELDS)) + 900


def test_uid_digest_ignores_padding() -> None:
    expected = hashlib.sha256(b"1.2.3").digest()[:8]
    assert [record.uid_digest(uid) for uid in ("1.2.3", "1.2.3\0", "1.2.3 ")] == [expected] * 3


def frame(rows: int, cols: int, channels: int = 1, seed: int = 0) -> Frame:
    samples = np.random.default_rng(seed).integers(-1024, 3072, (channels, rows, cols), np.int32)
    return Frame(samples, -32768, 32767, number=5)


def test_pixel_digest_is_as_documented() -> None:
    given = frame(3, 4, 2)
    content = b"blessmark pixels" + b"".join(n.to_bytes(4) for n in (2, 3, 4))
    content += (-32768).to_bytes(4, signed=True) + (32767).to_bytes(4)
    content += b"".join((v % 65536).to_bytes(2, "little") for v in given.samples.ravel().tolist())
    assert record.pixel_digest(given) == hashlib.sha256(content).digest()[:16]
    turned = replace(given, samples=np.ascontiguousarray(given.samples.swapaxes(1, 2)).swapaxes(1, 2))
    assert record.pixel_digest(turned) == record.pixel_digest(given)


@pytest.mark.parametrize("change", [{"lo": -32767}, {"hi": 32766}])
def test_pixel_digest_covers_the_range(change: dict[str, int]) -> None:
    assert record.pixel_digest(replace(frame(3, 4), **change)) != record.pixel_digest(frame(3, 4))


@pytest.mark.parametrize(
    ("rows", "cols", "step", "cells"),
    [
        (1, 1, 1, 1),
        (64, 65, 1, 2),
        (512, 512, 1, 64),
        (513, 512, 2, 20),
        (2048, 1500, 4, 48),
        (64, 70_000, 32, 35),
    ],
)
def test_grid_steps_by_the_smallest_power_of_two(rows: int, cols: int, step: int, cells: int) -> None:
    grid = Grid.of(rows, cols)
    assert (grid.step, len(grid.cells)) == (step, cells)


@pytest.mark.parametrize("shape", [(40, 200), (700, 513), (64, 64)])
def test_cells_cover_every_pixel_once(shape: tuple[int, int]) -> None:
    covered = np.zeros(shape, int)
    for cell in Grid.of(*shape).cells:
        covered[cell.top : cell.bottom, cell.left : cell.right] += 1
    assert (covered == 1).all()


def test_cell_digests_point_at_the_changed_cell() -> None:
    keys = crypto.derive(SiteKey(1, bytes(32)))
    given = frame(130, 200, 3)
    before = record.cell_digests(keys, given)
    assert len(before) == len(Grid.of(130, 200).cells) == 12
    samples = given.samples.copy()
    samples[2, 70:120, 130:190] ^= 1
    after = record.cell_digests(keys, given.with_samples(samples))
    assert [i for i in range(12) if before[i] != after[i]] == [6]


def test_cell_digests_are_keyed_and_bound_to_the_frame() -> None:
    given = frame(512, 512)
    keys, others = (crypto.derive(SiteKey(1, bytes([n]) * 32)) for n in (1, 2))
    digests = record.cell_digests(keys, given)
    for different in (
        record.cell_digests(others, given),
        record.cell_digests(keys, replace(given, number=6)),
    ):
        assert sum(a == b for a, b in zip(digests, different, strict=True)) < 8


@pytest.mark.parametrize(
    ("rows", "cols", "channels", "lo", "hi"),
    [(130, 200, 3, 0, 255), (512, 512, 1, 0, 65535), (700, 513, 1, -2048, 2047), (5, 3, 1, 0, 4095)],
)
def test_cell_digests_are_one_byte_of_a_keyed_hash(
    rows: int, cols: int, channels: int, lo: int, hi: int
) -> None:
    keys = crypto.derive(SiteKey(1, bytes(32)))
    samples = np.random.default_rng(rows).integers(lo, hi + 1, (channels, rows, cols)).astype(np.int32)
    expected = b""
    for index, cell in enumerate(Grid.of(rows, cols).cells):
        own = samples[:, cell.top : cell.bottom, cell.left : cell.right].astype("<u2").tobytes()
        mac = hashlib.blake2b(digest_size=1, key=keys.cells, person=b"bm1 cell")
        mac.update(struct.pack(">II", 9, index) + own)
        expected += mac.digest()
    assert record.cell_digests(keys, Frame(samples, lo, hi, number=9)) == expected


def test_cells_are_cut_out_some_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    keys, given = crypto.derive(SiteKey(1, bytes(32))), frame(700, 513)
    digests = record.cell_digests(keys, given)
    monkeypatch.setattr(record, "_CUT_AT_ONCE", 1)
    assert record.cell_digests(keys, given) == digests


def headers(folders: list[Path]) -> Iterator[Record]:
    """One full record for each study among the files."""
    studies = set()
    for path in (path for folder in folders for path in sorted(folder.rglob("*.dcm"))):
        try:
            header = pydicom.dcmread(path, specific_tags=[0x00080005, *FULL_FIELDS], stop_before_pixels=True)
        except (pydicom.errors.InvalidDicomError, OSError, EOFError):
            continue
        raw = {tag: header.get_item(tag).value for tag in (*FULL_FIELDS,) if tag in header}
        fields = {tag: value or b"" for tag, value in raw.items() if isinstance(value, bytes | None)}
        if 0x00080018 not in fields or fields.get(0x0020000D) in studies:
            continue
        studies.add(fields.get(0x0020000D))
        yield with_fields(fields)


def test_sizes_of_public_headers(shared_data: Path) -> None:
    """Median and 90th percentile that the capacity tables of the design count on."""
    pydicom_files = Path(pydicom.__file__).parent / "data" / "test_files"
    records = [replace(found, digests=b"") for found in headers([shared_data / "dicom", pydicom_files])]
    assert len(records) > 40
    assert all(decode(encode(found), 2) == found for found in records)
    sizes = [bits(found) for found in records]
    assert np.median(sizes) <= 950
    assert np.percentile(sizes, 90) <= 1250
