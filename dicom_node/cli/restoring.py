"""One file restored, in the process of a pool, and written whole if it is proven."""

from __future__ import annotations

from blessmark import pixels
from dicom_node.cli.files import Pair, write_whole
from dicom_node.cli.reading import instance, skipped
from dicom_node.item import How
from dicom_node.judgement import reader_of
from dicom_node.problem import problem
from dicom_node.report import ErrorReport, InstanceReport, Note
from dicom_node.review import recover


class Restorer:
    """Restores one file after the other; loads the keys and the segmenters once.

    With `everything`, what can be restored of an image that is not proven is written too.
    """

    def __init__(self, how: How, *, everything: bool) -> None:
        self._reader = reader_of(how.keys, how.segmenter)
        self._everything = everything

    def __call__(self, pair: Pair) -> InstanceReport | ErrorReport | Note:
        """The report on a file; whatever is wrong with it is told and raises nothing."""
        try:
            ds = instance(pair.source)
            if ds is None:
                return skipped(pair.source)
            done = recover(ds, str(pair.source), self._reader, partial=self._everything)
            if done.restored:
                write_whole(pair.target, pixels.parts(ds))
            return done.report
        except Exception as error:
            return ErrorReport(str(pair.source), problem(pair.source.name, error))
