"""Who released an instance, judged with public keys alone and beside the findings of the ring."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from pydicom.dataset import Dataset

from blessmark import pixels
from blessmark.payload.signature import LAYER_ID, PublicKey, SigningKey
from blessmark.segment import segmenter
from blessmark.segment.whole import Whole
from blessmark.types import SignatureEvidence, SignatureState
from dicom_node import header, label
from dicom_node.config import Deidentify, OnUnprotectable, Profile, Retain, Uids
from dicom_node.protect import protect
from dicom_node.released import check_released, of_instance
from dicom_node.report import InstanceReport, SignatureReport
from dicom_node.review import Reader, recover, review
from tests import builders
from tests.builders import reread
from tests.strategies import OTHER_KEY, RING, Ring
from tests.unit.node.test_protect import MODALITIES, PATIENT, TIME_S, full_of_tissue, site

SIGNER, OTHER = SigningKey(bytes(range(32))), SigningKey(bytes(32))
KEY = PublicKey(SIGNER.public)
DRAWERS = (segmenter("anatomy"), Whole())
READER = Reader(RING, DRAWERS, public_keys=(KEY,))


def signed(ds: Dataset, **how: object) -> Dataset:
    done = protect(ds, site(signer=SIGNER, **how), TIME_S)
    assert done.changed
    assert all(mark.signature is not None for mark in done.frames)
    return reread(ds)


def checked(ds: Dataset, keys: Sequence[PublicKey] = (KEY,)) -> InstanceReport:
    return check_released(ds, "x", DRAWERS, keys)


@pytest.mark.parametrize("kind", MODALITIES)
def test_every_kind_is_signed_in_its_pixels_and_comes_back(kind: str) -> None:
    ds = signed(MODALITIES[kind]())
    report = review(ds, "x", READER).report
    assert report.finding == "authentic"
    assert report.signature == SignatureReport("valid", KEY.id.hex(), "2026-09-21T14:13:20Z", "pixels")
    assert checked(ds).finding == "signed"
    done = recover(ds, "x", READER)
    assert done.restored
    assert label.read_mark(ds) is None


BASIC = Deidentify(profile=Profile.BASIC)


@pytest.mark.parametrize(
    "how",
    [
        {"uids": Uids.DERIVE},
        {"deidentify": BASIC},
        {"deidentify": BASIC.model_copy(update={"retain": (Retain.UIDS,)})},
        {"deidentify": BASIC.model_copy(update={"retain": (Retain.UIDS,)}), "uids": Uids.DERIVE},
    ],
    ids=["derived", "de-identified", "UIDs retained", "retained and derived"],
)
def test_it_names_the_instance_that_leaves(how: dict[str, object]) -> None:
    assert checked(signed(builders.ct(256, 256, **PATIENT), **how)).finding == "signed"


def test_without_room_it_travels_in_the_private_block() -> None:
    ds = signed(full_of_tissue())
    mark = label.read_mark(ds)
    assert mark is not None
    assert [number for number, _ in mark.signatures] == [1]
    assert LAYER_ID not in mark.segmenters
    report = review(ds, "x", READER).report
    assert (report.finding, report.signature.state, report.signature.carried) == (
        "authentic",
        "valid",
        "header",
    )
    assert checked(ds).finding == "signed"


def test_a_reader_without_signatures_is_told_not_to_judge() -> None:
    mark = label.read_mark(signed(builders.ct(256, 256, **PATIENT)))
    assert mark is not None
    assert LAYER_ID in mark.segmenters


def test_dropping_the_private_block_does_not_drop_the_signature() -> None:
    ds = signed(builders.ct(256, 256, **PATIENT))
    for tag in [tag for tag in ds.keys() if int(tag) >> 16 == 0x0099]:  # noqa: SIM118
        del ds[tag]
    assert label.read_mark(ds) is None
    assert checked(ds).finding == "signed"
    assert review(ds, "x", READER).report.signature.state == "valid"


def test_another_instance_uid_makes_it_invalid() -> None:
    ds = signed(builders.ct(256, 256, **PATIENT))
    header.put_bytes(ds, 0x00080018, "UI", b"2.25.1\0\0")
    assert checked(ds).finding == "bad-signature"


def test_what_cannot_be_signed_is_unsigned() -> None:
    report = checked(builders.ct(256, 256, **PATIENT))
    assert (report.finding, report.signature) == ("unsigned", SignatureReport())
    assert checked(signed(builders.ct(256, 256, **PATIENT)), ()).finding == "unknown-signer"
    assert checked(signed(builders.ct(256, 256, **PATIENT)), (PublicKey(KEY.raw, True),)).finding == (
        "revoked-signer"
    )
    overlaid = builders.ct(256, 256, BitsStored=12, HighBit=13, **PATIENT)
    assert (checked(overlaid).finding, bool(checked(overlaid).reason)) == ("unsigned", True)


def test_a_stranger_who_holds_no_ring_learns_nothing_of_the_record() -> None:
    ds = signed(builders.ct(256, 256, **PATIENT))
    report = review(ds, "x", Reader(Ring(OTHER_KEY), DRAWERS, public_keys=(KEY,))).report
    assert report.finding == "wrong-key"
    assert report.signature.state == "valid"
    assert report.node == report.protected_at == ""


def test_the_same_instance_again_gives_the_same_bytes() -> None:
    first, second = (signed(builders.mr(256, 192, **PATIENT)) for _ in range(2))
    assert pixels.digest(first) == pixels.digest(second)


def test_a_signed_image_that_comes_again_is_passed_on() -> None:
    ds = signed(builders.ct(256, 256, **PATIENT))
    again = protect(ds, site(signer=SIGNER), TIME_S)
    assert (again.result, again.reason) == ("passed", "already-protected")


def test_the_whole_image_opt_in_is_signed_by_its_own_map() -> None:
    ds = signed(full_of_tissue(256), policy=OnUnprotectable.WHOLE_IMAGE)
    assert checked(ds).finding == "signed"


def evidence(state: str, key: bytes = b"k" * 8, carried: str = "pixels") -> SignatureEvidence:
    return SignatureEvidence(SignatureState(state), key, 0, carried)


NONE = SignatureEvidence()


@pytest.mark.parametrize(
    ("frames", "state"),
    [
        ([], "none"),
        ([NONE, NONE], "none"),
        ([evidence("valid"), evidence("valid", carried="header")], "valid"),
        ([evidence("valid"), NONE], "invalid"),
        ([evidence("valid"), evidence("valid", b"o" * 8)], "invalid"),
        ([evidence("valid"), evidence("invalid")], "invalid"),
        ([evidence("revoked"), evidence("revoked")], "revoked"),
        ([evidence("unknown-key")], "unknown-key"),
    ],
)
def test_an_instance_is_as_good_as_its_worst_frame(frames: list[SignatureEvidence], state: str) -> None:
    assert of_instance(frames).state == state
