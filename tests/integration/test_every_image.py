"""Every public image there is: marked, written, read, judged, recovered, or refused with a clear error."""

from __future__ import annotations

import pytest

from benchmarks.images import dicom_files
from benchmarks.journeys import Journey, public_files, travel, travel_deidentified, travel_derived
from benchmarks.run import spread

pytestmark = pytest.mark.slow

_RESULTS = {"protected", "protected-header", "passed", "rewritten", "held"}


def judged(journeys: list[Journey]) -> None:
    """No file may end in anything but a round trip, a reason, or an error of one line."""
    kept = [journey for journey in journeys if not journey.error]
    assert kept, "there must be images to judge"
    assert {journey.result for journey in kept} <= _RESULTS
    changed = [journey for journey in kept if journey.result not in ("passed", "held")]
    assert changed
    assert [journey for journey in changed if not journey.complete] == []
    assert [journey for journey in changed if journey.native and not journey.identical] == []
    passed = [journey for journey in kept if journey.result == "passed"]
    assert [journey for journey in passed if not journey.reason or journey.differing] == []
    assert [journey for journey in journeys if "\n" in journey.error] == []


def refused_as_expected(journeys: list[Journey]) -> None:
    """Files that are broken on purpose are known by name: any other that is refused is a bug of ours."""
    refused = {journey.source: journey.error for journey in journeys if journey.error}
    assert refused.keys() - _REFUSED.keys() == set()
    assert {name: error for name, error in refused.items() if _REFUSED[name] not in error} == {}


_ROUTES = {"plain": travel, "derived": travel_derived, "de-identified": travel_deidentified}


@pytest.mark.parametrize("route", _ROUTES)
def test_the_image_folder(shared_data, route):
    journeys = spread(_ROUTES[route], dicom_files(shared_data))
    judged(journeys)
    refused_as_expected(journeys)


@pytest.mark.parametrize("route", _ROUTES)
def test_the_files_that_pydicom_tests_itself_with(route):
    journeys = spread(_ROUTES[route], public_files())
    judged(journeys)
    # what has no UID cannot get a new one
    nameless = "no SOP Instance UID"
    refused_as_expected([j for j in journeys if route == "plain" or nameless not in j.error])


_NO_PREFIX, _CUT_SHORT, _NO_PIXELS = "lacks the DICM prefix", "cut short", "Pixel Data is missing"
#: file -> what its error must say
_REFUSED = {
    **dict.fromkeys(("ExplVR_BigEndNoMeta.dcm", "ExplVR_LitEndNoMeta.dcm", "no_meta.dcm"), _NO_PREFIX),
    **dict.fromkeys(("OT-PAL-8-face.dcm", "rtstruct.dcm"), _NO_PREFIX),
    **dict.fromkeys(("README", "crayons.icc", "rtplan.dump", "rtstruct.dump", "zipMR.gz"), _NO_PREFIX),
    **dict.fromkeys(("MR_truncated.dcm", "rtplan_truncated.dcm"), _CUT_SHORT),
    **dict.fromkeys(("chrJapMulti.dcm", "chrJapMultiExplicitIR6.dcm", "chrKoreanMulti.dcm"), _NO_PIXELS),
    "emri_small_jpeg_2k_lossless_too_short.dcm": "no data set behind the file header",
    "meta_missing_tsyntax.dcm": "transfer syntax is not stated",
    "JPEGLosslessP14SV1_1s_1f_u_16_16.dcm": "no SOP Instance UID",
    "nested_priv_SQ.dcm": "BitsStored is missing",
    # bytes of a sequence delimiter inside a codestream, where pydicom stops reading
    "JPEG2000-embedded-sequence-delimiter.dcm": "contradicts the header",
}
