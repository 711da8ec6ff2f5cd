"""New UIDs: the same wherever the key is, and every reference follows."""

from __future__ import annotations

import re

from pydicom import uid
from pydicom.dataset import Dataset

from blessmark import pixels
from dicom_node.uids import INSTANCE_UIDS, deriver, restored_uid, rewrite_uids
from tests.builders import dataset, file_bytes, phantom
from tests.strategies import KEY, OTHER_KEY, RING, Ring


def reference(instance: str) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = uid.MRImageStorage, instance
    return item


def referring(*instances: str) -> Dataset:
    """An object that refers to instances, some of them below others."""
    series = Dataset()
    series.SeriesInstanceUID = "2.25.5"
    series.ReferencedSOPSequence = [reference(each) for each in instances]
    study = Dataset()
    study.StudyInstanceUID, study.ReferencedSeriesSequence = "2.25.6", [series]
    return pixels.read(file_bytes(dataset(phantom(8, 8), CurrentRequestedProcedureEvidenceSequence=[study])))


def test_two_nodes_with_the_same_key_agree_and_others_do_not():
    assert deriver(RING)("2.25.1") == deriver(Ring(KEY))("2.25.1")
    assert deriver(RING)("2.25.1") != deriver(Ring(OTHER_KEY))("2.25.1")
    assert deriver(RING)("2.25.1") != deriver(RING)("2.25.2")


def test_a_new_key_changes_nothing():
    assert deriver(Ring(OTHER_KEY, KEY))("2.25.1") == deriver(RING)("2.25.1")


def test_is_a_uid_of_the_form_that_needs_no_root():
    derived = deriver(RING)("1.2.3")
    assert re.fullmatch(r"2\.25\.(0|[1-9][0-9]*)", derived)
    assert uid.UID(derived).is_valid


def test_uids_of_the_standard_stay():
    assert deriver(RING)(uid.MRImageStorage) == uid.MRImageStorage
    assert deriver(RING)("1.2.840.10008.1.4.1.1") == "1.2.840.10008.1.4.1.1"
    assert deriver(RING)("") == ""


def test_references_follow_at_every_depth_and_the_study_stays():
    derive = deriver(RING)
    ds = referring("2.25.7", "2.25.8")
    before = ds.SOPInstanceUID, ds.StudyInstanceUID
    rewrite_uids(ds, derive)
    (study,) = ds.CurrentRequestedProcedureEvidenceSequence
    (series,) = study.ReferencedSeriesSequence
    assert (ds.SOPInstanceUID, ds.StudyInstanceUID) == (derive(before[0]), before[1])
    assert (study.StudyInstanceUID, series.SeriesInstanceUID) == ("2.25.6", derive("2.25.5"))
    referred = [each.ReferencedSOPInstanceUID for each in series.ReferencedSOPSequence]
    assert referred == [derive("2.25.7"), derive("2.25.8")]
    assert series.ReferencedSOPSequence[0].ReferencedSOPClassUID == uid.MRImageStorage


def test_an_item_that_is_renamed_loses_its_signature_and_no_other_does():
    ds = referring("2.25.7")
    (study,) = ds.CurrentRequestedProcedureEvidenceSequence
    (series,) = study.ReferencedSeriesSequence
    untouched = Dataset()
    untouched.Manufacturer = "signed"
    for holder in (ds, study, untouched):
        holder.DigitalSignaturesSequence, holder.MACParametersSequence = [Dataset()], [Dataset()]
    ds.ContributingEquipmentSequence = [untouched]
    rewrite_uids(ds, deriver(RING))
    (renamed,) = ds.CurrentRequestedProcedureEvidenceSequence
    assert not {"DigitalSignaturesSequence", "MACParametersSequence"} & set(renamed.dir())
    assert "DigitalSignaturesSequence" in study, "what was read is not changed in place"
    assert "DigitalSignaturesSequence" in ds.ContributingEquipmentSequence[0]
    assert "DigitalSignaturesSequence" in ds, "that of the whole is the label's to remove"
    assert "DigitalSignaturesSequence" not in series


def test_what_is_restored_nearly_has_a_uid_for_each_outcome():
    made = restored_uid(RING, "2.25.1", b"pixels")
    assert uid.UID(made).is_valid
    assert made == restored_uid(Ring(OTHER_KEY, KEY), "2.25.1", b"pixels")
    others = {restored_uid(RING, "2.25.1", b"others"), restored_uid(RING, "2.25.2", b"pixels")}
    assert len({made, deriver(RING)("2.25.1"), *others}) == 4


def test_the_image_that_a_frame_was_taken_from():
    derive = deriver(RING)
    ds = Dataset()
    ds.MultiFrameSourceSOPInstanceUID = "2.25.9"
    rewrite_uids(ds, derive)
    assert derive("2.25.9") == ds.MultiFrameSourceSOPInstanceUID


def test_every_value_of_a_list():
    derive = deriver(RING)
    ds = Dataset()
    ds.FailedSOPInstanceUIDList = ["2.25.1", "2.25.2"]
    rewrite_uids(ds, derive)
    assert ds.FailedSOPInstanceUIDList == [derive("2.25.1"), derive("2.25.2")]


def test_all_of_them_are_uids():
    from pydicom.datadict import dictionary_VR

    assert {dictionary_VR(tag) for tag in INSTANCE_UIDS} == {"UI"}
