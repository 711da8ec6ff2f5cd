"""Which study and patient an object belongs to, read from its file when it is told about."""

from __future__ import annotations

import logging
import re
from functools import lru_cache
from pathlib import Path

from pydicom import dcmread
from pydicom.dataset import Dataset

from dicom_node import log
from dicom_node.audit.events import Study
from dicom_node.blobs.port import BlobStore
from dicom_node.errors import BlobsUnavailable, SpoolError

_LOG = logging.getLogger(__name__)
_TAGS = ["SpecificCharacterSet", "PatientID", "StudyInstanceUID"]
#: what is no UID may be anything, a name too; and what is longer than the standard has it (PS3.5 section 6.2)
#: would make messages that no repository takes, and all others wait behind them
_UID = re.compile(r"[0-9.]{1,64}")
_LONGEST_ID = 64
#: an object is asked for when it came, when it was worked on, and for every destination
_REMEMBERED = 4096


class Subjects:
    """The studies of objects in a spool; reads each header once, about a millisecond."""

    def __init__(self, spool: BlobStore) -> None:
        self._spool = spool
        self._study = lru_cache(maxsize=_REMEMBERED)(self._read)

    def __call__(self, blob: str) -> Study:
        """The study of a spool file; an empty one when the file is gone or does not tell.

        Raises BlobsUnavailable while a shared store is away: what is not known yet is not told as nothing.
        """
        return self._study(blob) if blob else Study()

    def _read(self, blob: str) -> Study:
        try:
            path = self._spool.path(blob)
        except BlobsUnavailable:  # it will tell later, and whoever follows waits
            raise
        except SpoolError:  # a row that names no file of the spool
            return Study()
        return study_in(path)


def study_in(path: Path) -> Study:
    """The study of a DICOM file; an empty one when it does not tell."""
    try:
        return study_of(dcmread(path, stop_before_pixels=True, specific_tags=_TAGS))
    except Exception as error:  # nothing that arrives may keep the trail from going on
        log.event(_LOG, "study-unknown", level=logging.DEBUG, error=error)
        return Study()


def study_of(ds: Dataset) -> Study:
    """The study of a data set; "" for a UID that is none, the first 64 characters of a longer Patient ID."""
    uid = str(ds.get("StudyInstanceUID", "") or "")
    patient_id = str(ds.get("PatientID", "") or "")
    return Study(uid if _UID.fullmatch(uid) else "", patient_id[:_LONGEST_ID])
