"""What is accepted on the wire, and what never is."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom._uid_dict import UID_dictionary
from pydicom.uid import UID, AllTransferSyntaxes
from pynetdicom import sop_class

from dicom_node.dimse.contexts import (
    SERVICES,
    STORAGE_CLASSES,
    STORAGE_COMMITMENT,
    STORAGE_COMMITMENT_INSTANCE,
    TRANSFER_SYNTAXES,
    VERIFICATION,
    choose_syntax,
    is_accepted_class,
    is_storage,
    is_uid,
)

CT = "1.2.840.10008.5.1.4.1.1.2"
EXPLICIT, IMPLICIT, J2K = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2", "1.2.840.10008.1.2.4.90"

_NOT_STORAGE = (
    sop_class._BASIC_WORKLIST_CLASSES,
    sop_class._QR_CLASSES,
    sop_class._PRINT_MANAGEMENT_CLASSES,
    sop_class._PROCEDURE_STEP_CLASSES,
    sop_class._STORAGE_COMMITMENT_CLASSES,
    sop_class._STORAGE_MANAGEMENT_CLASSES,
    sop_class._UNIFIED_PROCEDURE_STEP_CLASSES,
    sop_class._INSTANCE_AVAILABILITY_CLASSES,
    sop_class._MEDIA_STORAGE_CLASSES,
    sop_class._MEDIA_CREATION_CLASSES,
    sop_class._RELEVANT_PATIENT_QUERY_CLASSES,
    sop_class._HANGING_PROTOCOL_CLASSES,
    sop_class._COLOR_PALETTE_CLASSES,
    sop_class._IMPLANT_TEMPLATE_CLASSES,
    sop_class._INVENTORY_CLASSES,
    sop_class._PROTOCOL_APPROVAL_CLASSES,
    sop_class._SUBSTANCE_ADMINISTRATION_CLASSES,
    sop_class._VERIFICATION_CLASSES,
)


def test_every_standard_storage_class_is_taken() -> None:
    assert len(STORAGE_CLASSES) > 170
    assert all(is_storage(uid) for uid in STORAGE_CLASSES)


@pytest.mark.parametrize(
    "uid",
    [
        "1.2.840.10008.5.1.4.1.1.6",  # ultrasound, retired
        "1.3.46.670589.11.0.0.12.4",  # private
        "1.2.840.10008.5.1.4.1.1.9999.1",  # a storage class of a future edition
    ],
)
def test_retired_private_and_future_storage_is_taken(uid: str) -> None:
    assert is_storage(uid)


@pytest.mark.parametrize("uid", sorted(uid for group in _NOT_STORAGE for uid in group.values()))
def test_no_other_service_is_taken_for_storage(uid: str) -> None:
    assert not is_storage(uid)


@pytest.mark.parametrize("uid", [EXPLICIT, "1.2.840.10008.3.1.1.1", "1.2.840.10008.5.1.4.1.2.99.1", "", "CT"])
def test_what_is_no_class_of_objects_is_refused(uid: str) -> None:
    assert not is_storage(uid)


def test_registered_classes_without_storage_in_their_name_are_refused() -> None:
    others = [uid for uid, row in UID_dictionary.items() if row[1] == "SOP Class" and "Storage" not in row[0]]
    assert others
    assert not any(is_storage(uid) for uid in others)


def test_verification_is_accepted_but_is_not_storage() -> None:
    assert is_accepted_class(VERIFICATION)
    assert not is_storage(VERIFICATION)


def test_storage_commitment_is_accepted_uncompressed_but_is_not_storage() -> None:
    assert is_accepted_class(STORAGE_COMMITMENT)
    assert not is_storage(STORAGE_COMMITMENT)
    assert set(SERVICES) == {VERIFICATION, STORAGE_COMMITMENT}
    assert choose_syntax(STORAGE_COMMITMENT, (J2K, IMPLICIT)) == IMPLICIT
    assert choose_syntax(STORAGE_COMMITMENT, (J2K,)) is None
    assert UID(STORAGE_COMMITMENT).name == "Storage Commitment Push Model SOP Class"
    assert UID_dictionary[STORAGE_COMMITMENT_INSTANCE][1] == "Well-known SOP Instance"


def test_all_syntaxes_of_pydicom_are_accepted_but_real_time_video() -> None:
    refused = set(AllTransferSyntaxes) - set(TRANSFER_SYNTAXES)
    assert all("SMPTE" in UID(uid).name for uid in refused)


def test_syntaxes_are_distinct_and_registered() -> None:
    assert len(set(TRANSFER_SYNTAXES)) == len(TRANSFER_SYNTAXES)
    assert all(UID_dictionary[uid][1] == "Transfer Syntax" for uid in TRANSFER_SYNTAXES)


@pytest.mark.parametrize("proposed", [(J2K, EXPLICIT), (EXPLICIT, J2K), ("1.2.3.4", J2K, IMPLICIT)])
def test_the_first_known_syntax_of_the_sender_is_chosen(proposed: tuple[str, ...]) -> None:
    assert choose_syntax(CT, proposed) == next(uid for uid in proposed if uid != "1.2.3.4")


@pytest.mark.parametrize("proposed", [(), ("1.2.3.4.5.6",), ("1.2.840.10008.1.2.7.1",)])
def test_without_a_known_syntax_nothing_is_chosen(proposed: tuple[str, ...]) -> None:
    assert choose_syntax(CT, proposed) is None


def test_verification_is_never_negotiated_compressed() -> None:
    assert choose_syntax(VERIFICATION, (J2K, EXPLICIT)) == EXPLICIT
    assert choose_syntax(VERIFICATION, (J2K,)) is None


@pytest.mark.parametrize("uid", ["1.2.840.10008.1.1", "2.25.0", "1", "0.01.2", "1" * 64])
def test_uids(uid: str) -> None:
    assert is_uid(uid)


@pytest.mark.parametrize(
    "uid", ["", ".", "1.", ".1", "1..2", "1.2\n", "../../x", "1.2.x", "\u0661.\u0662", "1" * 65, " 1.2"]
)
def test_what_is_no_uid(uid: str) -> None:
    assert not is_uid(uid)


@given(st.text())
def test_a_uid_is_safe_wherever_it_is_written(text: str) -> None:
    if is_uid(text):
        assert set(text) <= set("0123456789.")
        assert 0 < len(text) <= 64
        assert ".." not in text
