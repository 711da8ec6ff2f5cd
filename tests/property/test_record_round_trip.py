"""Law: whatever record is encoded comes back, byte for byte; whatever bytes are decoded, nothing worse than
a RecordError comes out."""

from __future__ import annotations

from contextlib import suppress

from hypothesis import given, settings
from hypothesis import strategies as st

from blessmark.errors import RecordError
from blessmark.payload.record import CORE_FIELDS, FULL_FIELDS, decode, encode, reduce, uid_digest
from blessmark.types import Record, Tier

names = st.builds(
    lambda head, tail: head + tail,
    st.text("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz^= ", max_size=24).map(str.encode),
    st.sampled_from(["", "山田^太郎", "やまだ^たろう", "ﾔﾏﾀﾞ^ﾀﾛｳ"]).flatmap(
        lambda text: st.sampled_from([text.encode(), text.encode("iso2022_jp_ext", "replace")])
    ),
)
uids = st.from_regex(rb"\A[0-2](\.(0|[1-9][0-9]{0,9})){1,6}\0?\Z")
dates = st.from_regex(rb"\A[12][0-9]{3}[01][0-9][0-3][0-9]\Z")
values = st.one_of(names, uids, dates, st.binary(max_size=40))
tags = st.one_of(st.sampled_from(FULL_FIELDS), st.integers(0, 2**32 - 1))


@st.composite
def records(draw: st.DrawFn) -> Record:
    fields = draw(st.dictionaries(tags, values, max_size=8))
    stated = draw(st.one_of(st.binary(min_size=8, max_size=8), st.none()))
    instance = fields.get(0x00080018, b"").decode("utf-8", "surrogateescape")
    return Record(
        tier=draw(st.sampled_from([Tier.FULL, Tier.CORE])),
        pixel_digest=draw(st.binary(min_size=16, max_size=16)),
        uid_digest=uid_digest(instance) if stated is None else stated,
        frame=draw(st.integers(1, 2**32 - 1)),
        frames=draw(st.integers(1, 2**32)),
        time_s=draw(st.integers(0, 2**32 - 1)),
        node=draw(st.text(st.characters(exclude_categories=["Cs"]), max_size=12)),
        segmenter=draw(st.text("abcdefgh/0123456789", max_size=12)),
        charset=draw(
            st.one_of(st.sampled_from([b"", b"ISO_IR 100", b"\\ISO 2022 IR 87 "]), st.binary(max_size=9))
        ),
        fields=fields,
        digests=draw(st.binary(max_size=64)),
    )


@given(records())
@settings(max_examples=150, deadline=None)
def test_decode_undoes_encode(record: Record) -> None:
    assert decode(encode(record), record.frame) == record


@given(records(), st.sampled_from(Tier))
@settings(max_examples=50, deadline=None)
def test_a_smaller_tier_comes_back_too_and_is_not_longer(record: Record, tier: Tier) -> None:
    if tier < record.tier:
        return
    smaller = reduce(record, tier)
    assert decode(encode(smaller), record.frame) == smaller
    assert tier is not Tier.CORE or smaller.fields.keys() <= set(CORE_FIELDS) | set(record.fields)


@given(st.sampled_from([0x10, 0x11, 0x12]), st.binary(max_size=200))
@settings(max_examples=100, deadline=None)
def test_bytes_that_no_encoder_wrote_are_a_record_error_at_worst(kind: int, content: bytes) -> None:
    with suppress(RecordError):
        decode(bytes([kind]) + content, 1)
