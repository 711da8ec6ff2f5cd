"""`dicom-node protect IN --out OUT`"""

from __future__ import annotations

import argparse
import re
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from pydicom.dataset import Dataset

from blessmark import pixels
from blessmark.types import BlockSettings, Carrier, Receipt
from dicom_node import header, log
from dicom_node.cli.files import Pair, pairs, progress, write_whole
from dicom_node.cli.reading import instance, ring_of, segmenters_of, skipped
from dicom_node.config import RECORD_FIELDS, Deidentify, OnUnprotectable, Profile, Uids
from dicom_node.errors import EXIT_DONE, EXIT_ERROR
from dicom_node.originals import SOP_INSTANCE_UID
from dicom_node.problem import printable, problem
from dicom_node.protect import Protection, Site, protect
from dicom_node.report import ErrorReport, line

_PIECE_BYTES = 1 << 20
_UID = re.compile(r"[0-9.]{1,64}")


def run(args: argparse.Namespace) -> int:
    """Watermark every file of IN; what is not an image is copied as it is, and counted."""
    site = _site(args)
    anew = args.out if args.deidentify and args.source.is_dir() else None
    counts: Counter[str] = Counter()
    tasks = pairs(args.source, args.out)
    for pair in progress(tasks, "protecting", len(tasks)):
        done = _protected(pair, site, anew)
        if done is None:
            counts["skipped"] += 1
            print(line(skipped(pair.source)), file=sys.stderr)
        elif isinstance(done, ErrorReport):
            counts["error"] += 1
            print(line(done), file=sys.stderr, flush=True)
        else:
            counts[done.result] += 1
            print(f"{done.result:<16} {_detail(done):<44} {printable(str(pair.source))}", flush=True)
    print(", ".join(f"{count} {result}" for result, count in counts.most_common()))
    return EXIT_ERROR if counts["error"] else EXIT_DONE


def _site(args: argparse.Namespace) -> Site:
    usual, rules = segmenters_of(args)
    return Site(
        node=args.node_id,
        ring=ring_of(args),
        segmenter=usual,
        rules=rules,
        record_tags=tuple(RECORD_FIELDS.values()),
        max_change=args.max_change,
        on_unprotectable=OnUnprotectable(args.on_unprotectable),
        uids=Uids(args.uids),
        deidentify=Deidentify(profile=Profile.BASIC) if args.deidentify else None,
        carrier=Carrier(args.carrier),
        blocks=BlockSettings(args.block),
    )


def _protected(pair: Pair, site: Site, anew: Path | None) -> Protection | ErrorReport | None:
    """Protect one file into its place, or into folder `anew` under a name that tells nothing."""
    try:
        ds = instance(pair.source)
        if ds is None:
            return None
        done = protect(ds, site, int(time.time()))
        if done.result not in ("rejected", "held"):
            target = pair.target if anew is None else anew / _untelling_name(ds)
            write_whole(target, pixels.parts(ds) if done.changed else _pieces(pair.source))
        return done
    except Exception as error:
        return ErrorReport(str(pair.source), problem(pair.source.name, error))


def _pieces(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while piece := file.read(_PIECE_BYTES):
            yield piece


def _untelling_name(ds: Dataset) -> str:
    """Names of files and folders are a patient's often enough; a UID of this node is nobody's."""
    uid = header.text(ds, SOP_INSTANCE_UID)
    return f"{uid if _UID.fullmatch(uid) else log.uid_hash(uid)}.dcm"


def _detail(done: Protection) -> str:
    receipts = [mark.receipt for mark in done.frames if mark.receipt is not None]
    if not receipts:
        return done.reason
    weakest = max(receipts, key=lambda receipt: receipt.tier)
    parts = [
        f"{weakest.tier.name.lower()} {_carried(weakest)}",
        f"{min(receipt.psnr_db for receipt in receipts):.1f} dB",
    ]
    if len(done.frames) > 1:
        parts.append(f"{len(receipts)} of {len(done.frames)} frames")
    if done.reason:
        parts.append(done.reason)
    return ", ".join(parts)


def _carried(receipt: Receipt) -> str:
    """Framing and lattice, or framing and side of a block."""
    how = receipt.block_px if receipt.lattice is None else receipt.lattice.name.lower()
    return f"{receipt.framing}/{how}"
