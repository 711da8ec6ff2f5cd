"""`python -m training train|evaluate|export --data DIR`: see docs/networks.md."""

from __future__ import annotations

import argparse
import importlib
import json
import os
import sys
from pathlib import Path

from training.photos import FOLDS, DataError


def main(arguments: list[str] | None = None) -> int:
    """Run one command; 0 if it did its work, 2 if the data are not what it reads."""
    chosen = _parser().parse_args(arguments)
    _quiet_and_single_threaded(chosen.threads)
    try:
        commands = importlib.import_module(_module_of(chosen.network))  # Keras reads the environment
        report = getattr(commands, chosen.command)(chosen.network, chosen.data, chosen.out, chosen.fold)
    except DataError as error:
        print(f"training: {error}", file=sys.stderr)
        return 2
    print(json.dumps(report, indent=1))
    return 0


def _module_of(network: str) -> str:
    """Detectors are small and need no Keras."""
    return "training.detectors" if network.startswith("detector-") else "training.commands"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m training", description="Make the packaged networks.")
    parser.add_argument("command", choices=["train", "evaluate", "export"])
    parser.add_argument("--data", type=Path, required=True, help="folder of a data set, or of several")
    parser.add_argument(
        "--network",
        default="vessels",
        help="vessels, blessmark-block-{6,8,10}, detector-{paper,context}-{6,8,10}",
    )
    parser.add_argument(
        "--out", type=Path, default=Path("build/training"), help="for checkpoints and weights"
    )
    parser.add_argument(
        "--fold",
        type=int,
        choices=range(FOLDS),
        default=0,
        help="which quarter of a set without a split is held out, counted from the last (0)",
    )
    parser.add_argument("--threads", type=int, default=1, help="CPU threads; the seed fixes the result for 1")
    return parser


def _quiet_and_single_threaded(threads: int) -> None:
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "TF_NUM_INTRAOP_THREADS"):
        os.environ[name] = str(threads)
    os.environ["TF_NUM_INTEROP_THREADS"] = "1"
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


if __name__ == "__main__":
    sys.exit(main())
