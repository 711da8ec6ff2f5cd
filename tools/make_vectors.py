"""Writes the golden vectors: tests/vectors/{v1,dct,signature}/*.json and the subset in the engine.

The only writer. Vectors are frozen with the format: files that hold others are not overwritten, unless
the format has not been released.

    python -m tools.make_vectors [--format-not-yet-released]
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from blessmark.selftest import FORMAT, content_hash
from tools.vector_attacks import identity_vectors, tampering_vectors
from tools.vector_blocks import block_vectors
from tools.vector_making import Vector
from tools.vector_marks import global_vectors, tile_vectors
from tools.vector_signatures import signature_vectors

REPOSITORY = Path(__file__).parent.parent
TARGET = REPOSITORY / "tests" / "vectors" / "v1"
#: of the carrier `dct`, docs/format/dct.md
BLOCKS = REPOSITORY / "tests" / "vectors" / "dct" / "blocks.json"
#: of signature layers, docs/format/signature.md
SIGNATURES = REPOSITORY / "tests" / "vectors" / "signature" / "layers.json"
PACKAGED = REPOSITORY / "core" / "blessmark" / "vectors" / "v1.json"

PACKAGED_IDS = (
    "tile-small",
    "tile-signed-padding",
    "tile-quincunx",
    "global-rgb",
    "global-one-sided",
    "global-noise",
    "header-element",
    "header-and-pixels-altered",
    "rows-cut",
    "global-message-bit",
)


def files() -> dict[Path, str]:
    """Every file and its content."""
    sets = {"tile": tile_vectors(), "global": global_vectors()}
    made = {vector["id"]: vector for vectors in sets.values() for vector in vectors}
    sets |= {"tampering": tampering_vectors(made), "identity": identity_vectors(made)}
    everything = {vector["id"]: vector for vectors in sets.values() for vector in vectors}
    result = {TARGET / f"{name}.json": _document(name, vectors) for name, vectors in sets.items()}
    packaged = [everything[id_] for id_ in PACKAGED_IDS]
    result[PACKAGED] = _document("packaged", packaged)
    result[BLOCKS] = _document("blocks", block_vectors())
    result[SIGNATURES] = _document("signature layers", signature_vectors(made))
    return result


def _document(title: str, vectors: Sequence[Vector]) -> str:
    """One file: readable, one line for each part of a vector."""
    head = {"format": FORMAT, "title": title, "count": len(vectors), "sha256": content_hash(vectors)}
    lines = ["{", *(f'"{name}": {json.dumps(value)},' for name, value in head.items()), '"vectors": [']
    for number, vector in enumerate(vectors):
        parts = [f'  "{name}": {json.dumps(value)}' for name, value in vector.items()]
        lines += [" {", ",\n".join(parts), " }" + "," * (number + 1 < len(vectors))]
    return "\n".join([*lines, "]", "}", ""])


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the vectors; refuse to change frozen ones."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--format-not-yet-released", action="store_true", help="overwrite vectors that differ"
    )
    free = parser.parse_args(arguments).format_not_yet_released
    contents = files()
    changed = [path for path, text in contents.items() if path.exists() and path.read_text("utf-8") != text]
    if changed and not free:
        names = ", ".join(path.name for path in changed)
        print(
            f"{names}: this engine makes other vectors than the frozen ones; that is a new format",
            file=sys.stderr,
        )
        return 1
    for path, text in contents.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")
        print(f"{path.relative_to(REPOSITORY)}  {len(text)} bytes")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
