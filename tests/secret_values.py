"""What a de-identified object must not tell, and the search for it in bytes."""

from __future__ import annotations

from collections.abc import Iterator

from pydicom.charset import python_encoding
from pydicom.dataset import Dataset

from dicom_node import header
from dicom_node.config import Deidentify
from dicom_node.deidentify import action, table
from dicom_node.rewrite import as_sequence


def removed_values(ds: Dataset, profile: Deidentify) -> Iterator[bytes]:
    """Every value that the profile takes out, and its components, at any depth."""
    for tag in ds.keys():  # noqa: SIM118
        element = ds.get_item(tag)
        sequence = as_sequence(ds, element)
        if sequence is not None:
            for item in sequence.value:
                yield from removed_values(item, profile)
        elif tag.group % 2 or (int(tag) in table() and action(int(tag), profile) != "K"):
            value = (header.value_bytes(ds, int(tag)) or b"").strip(b" \0")
            parts = [value, *(part for p in value.split(b"\\") for part in p.replace(b"=", b"^").split(b"^"))]
            yield from {part for part in parts if len(part) >= 4}


def kept_values(ds: Dataset, profile: Deidentify) -> Iterator[bytes]:
    """Every value that the profile leaves, at any depth: what else says the same is no secret."""
    for tag in ds.keys():  # noqa: SIM118
        sequence = as_sequence(ds, ds.get_item(tag))
        if sequence is not None:
            for item in sequence.value:
                yield from kept_values(item, profile)
        elif tag.group % 2 == 0 and action(int(tag), profile) == "K" and tag.group != 0x7FE0:
            yield header.value_bytes(ds, int(tag)) or b""


def found(content: bytes, secrets: list[bytes]) -> list[bytes]:
    """Those of the values that stand in a file, as bytes or as the same text in another character set."""
    hits = []
    for secret in secrets:
        spellings = {secret}
        for codec in {"utf-8", "utf-16-le", "utf-16-be", *filter(None, python_encoding.values())}:
            try:
                spellings.add(secret.decode("utf-8").encode(codec))
            except (UnicodeError, LookupError):
                continue
        hits += [spelling for spelling in spellings if len(spelling) >= 4 and spelling in content]
    return hits
