"""What commands that load pixels themselves share: keys and segmenters by name, an instance from its file."""

from __future__ import annotations

import argparse
import stat
from pathlib import Path

from pydicom.dataset import Dataset

from blessmark import pixels, segment
from blessmark.types import KeyRing, Segmenter
from dicom_node.cli.judging import check_keys, check_segmenter
from dicom_node.config import Watermark
from dicom_node.errors import InputError
from dicom_node.judgement import MEDIA_DIRECTORY
from dicom_node.keys import FileKeyRing
from dicom_node.report import Note
from dicom_node.segmenters import Rules, rules_of


def ring_of(args: argparse.Namespace) -> KeyRing:
    """The key ring that the command line names; KeyFileError tells how to make a missing one."""
    check_keys(args.keys)
    return FileKeyRing.load(args.keys)


def segmenters_of(args: argparse.Namespace) -> tuple[Segmenter, Rules]:
    """The segmenter that the command line names; without a name the usual one, and the rules of a node.

    Raises UsageError for a name that this version lacks.
    """
    if args.segmenter is None:
        usual = Watermark()
        return segment.segmenter(usual.segmenter), rules_of(usual)
    check_segmenter(args.segmenter)
    return segment.segmenter(args.segmenter), ()


def instance(path: Path) -> Dataset | None:
    """The DICOM file at `path`, or None for a DICOMDIR, which indexes files and is none of them.

    Raises
    ------
    InputError, PixelError, OSError
        it is no regular file, is not DICOM, is broken, or cannot be read; see `problem`.
    """
    if not stat.S_ISREG(path.stat().st_mode):
        raise InputError("is neither a file nor a folder that can be listed; leave it out")
    ds = pixels.read(path)
    return None if ds.file_meta.get("MediaStorageSOPClassUID") == MEDIA_DIRECTORY else ds


def skipped(path: Path) -> Note:
    """What there is to say of a DICOMDIR that is left out; it is neither a finding nor an error."""
    return Note(str(path), "skipped", "an index of files (DICOMDIR), not an instance")
