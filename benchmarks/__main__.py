"""python -m benchmarks [NAME ...] [--data DIR] [--quick] [--seed N]

Without a name all of them run, in a few minutes on two cores; `--quick` is a half-minute look at each and
saves nothing.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path

from benchmarks import (
    causes,
    cluster,
    cluster_lan,
    coverage,
    faults,
    fidelity,
    forwarding,
    journeys,
    paper,
    query,
    queue_depth,
    receivers,
    receiving,
    results,
    speed,
    store_and_forward,
    tampering,
)
from benchmarks.run import Run

BENCHMARKS: dict[str, Callable[[Run], results.Result]] = {
    "store-and-forward": store_and_forward.measure,
    "fidelity": fidelity.measure,
    "coverage": coverage.measure,
    "speed": speed.measure,
    "tampering": tampering.measure,
    "causes": causes.measure,
    "journeys": journeys.measure,
    "receiving": receiving.measure,
    "forwarding": forwarding.measure,
    "queue-depth": queue_depth.measure,
    "receivers": receivers.measure,
    "cluster": cluster.measure,
    "cluster-links": cluster_lan.measure,
    "faults": faults.measure,
    "query": query.measure,
    "paper": paper.measure,
}
#: need no dicom/: they make their own objects, or read labelled photographs in any layout that training reads
_WITHOUT_IMAGES = {
    "store-and-forward",
    "forwarding",
    "queue-depth",
    "cluster",
    "cluster-links",
    "faults",
    "paper",
}
_REPOSITORY = Path(__file__).resolve().parent.parent


def main() -> int:
    """Run what was asked for; 2 when there are no images."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(BENCHMARKS))
    default = os.environ.get("DICOM_NODE_DATA", _REPOSITORY.parent / "shared" / "data")
    parser.add_argument("--data", type=Path, default=Path(default), help="folder with dicom/ and hrf/")
    parser.add_argument("--quick", action="store_true", help="fewer images and repeats; nothing is saved")
    parser.add_argument("--seed", type=int, default=1)
    chosen = parser.parse_args()
    unknown = sorted(set(chosen.names) - set(BENCHMARKS))
    if unknown:
        parser.error(f"no benchmark is called {', '.join(unknown)}; there are {', '.join(BENCHMARKS)}")
    if not (set(chosen.names) or set(BENCHMARKS)) <= _WITHOUT_IMAGES and not (chosen.data / "dicom").is_dir():
        parser.error(f"{chosen.data} holds no dicom/; name the image folder with --data or DICOM_NODE_DATA")
    run = Run(chosen.data, chosen.seed, chosen.quick)
    for name in chosen.names or BENCHMARKS:
        result = BENCHMARKS[name](run)
        print(f"\n{result.title}\n")
        print("\n".join(results.markdown(table) for table in result.tables if table.rows), flush=True)
        if not chosen.quick:
            results.save(result)
    return 0


if __name__ == "__main__":
    sys.exit(main())
