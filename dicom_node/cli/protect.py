"""`dicom-node protect IN --out OUT`"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter

from blessmark import pixels
from blessmark.errors import WatermarkError
from blessmark.segment import segmenter
from dicom_node.cli.files import Pair, pairs, progress, write_whole
from dicom_node.config import RECORD_FIELDS, OnUnprotectable
from dicom_node.errors import EXIT_DONE, EXIT_ERROR, NodeError
from dicom_node.keys import FileKeyRing
from dicom_node.protect import Protection, Site, protect, written


def run(args: argparse.Namespace) -> int:
    """Watermark every file of IN; what is not an image is copied as it is, and counted."""
    site = _site(args)
    counts: Counter[str] = Counter()
    for pair in progress(pairs(args.source, args.out), "protecting"):
        try:
            done = _protect_file(pair, site)
        except (NodeError, WatermarkError, OSError) as error:
            counts["error"] += 1
            print(f"error            {pair.source}: {error}", file=sys.stderr)
            continue
        counts[done.result] += 1
        print(f"{done.result:<16} {_detail(done):<44} {pair.source}")
    print(", ".join(f"{count} {result}" for result, count in counts.most_common()) or "nothing to protect")
    return EXIT_ERROR if counts["error"] else EXIT_DONE


def _site(args: argparse.Namespace) -> Site:
    return Site(
        node=args.node_id,
        ring=FileKeyRing.load(args.keys),
        segmenter=segmenter(args.segmenter),
        record_tags=tuple(RECORD_FIELDS.values()),
        max_change=args.max_change,
        on_unprotectable=OnUnprotectable(args.on_unprotectable),
    )


def _protect_file(pair: Pair, site: Site) -> Protection:
    ds = pixels.read(pair.source)
    done = protect(ds, site, int(time.time()))
    if done.result != "rejected":
        write_whole(pair.target, [written(ds) if done.changed else pair.source.read_bytes()])
    return done


def _detail(done: Protection) -> str:
    receipts = [mark.receipt for mark in done.frames if mark.receipt is not None]
    if not receipts:
        return done.reason
    weakest = max(receipts, key=lambda receipt: receipt.tier)
    parts = [
        f"{weakest.tier.name.lower()} {weakest.framing}/{weakest.lattice.name.lower()}",
        f"{min(receipt.psnr_db for receipt in receipts):.1f} dB",
    ]
    if len(done.frames) > 1:
        parts.append(f"{len(receipts)} of {len(done.frames)} frames")
    return ", ".join(parts)
