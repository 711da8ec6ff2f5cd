"""One instance judged, in the process of a pool: what is read, and what is said of what cannot be.

Everything heavy is imported here, so that the process that hands the work out stays small.
"""

from __future__ import annotations

import stat
from dataclasses import replace
from pathlib import Path

from pydicom.dataset import Dataset

from blessmark import pixels, segment
from blessmark.segment.whole import Whole
from dicom_node.config import Watermark
from dicom_node.errors import InputError
from dicom_node.item import How, Item
from dicom_node.keys import FileKeyRing
from dicom_node.pictures import Gallery
from dicom_node.problem import problem
from dicom_node.report import InstanceReport, Unreadable
from dicom_node.review import Reader, review
from dicom_node.segmenters import rules_of

#: SOP class of a DICOMDIR (PS3.10 section 8.6): an index of files, with nothing in it to protect or judge
MEDIA_DIRECTORY = "1.2.840.10008.1.3.10"
#: how `pixels.read` calls what has no name
_NAMELESS = "the object"


class Judge:
    """Judges one instance after the other; loads the keys and the segmenters once.

    Raises
    ------
    KeyFileError : the key ring cannot be read
    SegmenterError : this version lacks the segmenter
    """

    def __init__(self, how: How) -> None:
        self._reader = reader_of(how.keys, how.segmenter)
        self._show_record = how.show_record
        self._gallery = Gallery() if how.pictures else None

    def __call__(self, item: Item) -> InstanceReport | Unreadable:
        """The report on an instance; whatever is wrong with it is told and raises nothing."""
        try:
            ds = _read(item)
            content = pixels.digest(ds).hex()  # now, while every element still is what was read
            return replace(self._judged(ds, item.source), content=content)
        except Exception as error:
            name = item.path.name if item.path is not None else _NAMELESS
            return Unreadable(item.source, problem(name, error))

    def _judged(self, ds: Dataset, source: str) -> InstanceReport:
        painter = None if self._gallery is None else self._gallery.painter(ds)
        found = review(ds, source, self._reader, show_record=self._show_record, on_frame=painter)
        if self._gallery is None or painter is None:
            return found.report
        return replace(found.report, pictures=self._gallery.finished(ds, painter, found.finding))


def reader_of(keys: Path, segmenter: str | None) -> Reader:
    """The reader that a command line describes; without a segmenter the usual ones and a node's rules."""
    if segmenter is not None:
        return Reader(FileKeyRing.load(keys), (segment.segmenter(segmenter), Whole()))
    usual = Watermark()
    rules = rules_of(usual)
    drawers = (segment.segmenter(usual.segmenter), *(drawer for _, drawer in rules), Whole())
    return Reader(FileKeyRing.load(keys), drawers, rules)


def _read(item: Item) -> Dataset:
    if item.path is not None and not stat.S_ISREG(item.path.stat().st_mode):
        raise InputError("is neither a file nor a folder that can be listed; leave it out")
    ds = pixels.read(item.path if item.path is not None else item.data or b"")
    if ds.file_meta.get("MediaStorageSOPClassUID") == MEDIA_DIRECTORY:
        raise InputError("is an index of files (DICOMDIR), not an instance; name it DICOMDIR or leave it out")
    return ds
