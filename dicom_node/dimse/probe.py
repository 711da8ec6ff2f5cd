"""What a peer would take, asked without sending it anything: C-ECHO and the contexts of common objects."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass

from dicom_node.config import Destination, Tls
from dicom_node.dimse.contexts import VERIFICATION
from dicom_node.dimse.store import MAX_CONTEXTS, Pair, Sender

_IMPLICIT, _EXPLICIT = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1"
#: transfer syntaxes that what leaves the node is in, most common first
SYNTAXES: Mapping[str, str] = {
    _EXPLICIT: "Explicit VR Little Endian",
    _IMPLICIT: "Implicit VR Little Endian",
    "1.2.840.10008.1.2.4.80": "JPEG-LS Lossless",
    "1.2.840.10008.1.2.4.70": "JPEG Lossless",
    "1.2.840.10008.1.2.4.90": "JPEG 2000 Lossless",
    "1.2.840.10008.1.2.5": "RLE Lossless",
}
#: SOP classes that hospitals send most
CLASSES: Mapping[str, str] = {
    "1.2.840.10008.5.1.4.1.1.1": "CR",
    "1.2.840.10008.5.1.4.1.1.1.1": "DX",
    "1.2.840.10008.5.1.4.1.1.1.2": "MG",
    "1.2.840.10008.5.1.4.1.1.2": "CT",
    "1.2.840.10008.5.1.4.1.1.2.1": "enhanced CT",
    "1.2.840.10008.5.1.4.1.1.4": "MR",
    "1.2.840.10008.5.1.4.1.1.4.1": "enhanced MR",
    "1.2.840.10008.5.1.4.1.1.6.1": "US",
    "1.2.840.10008.5.1.4.1.1.3.1": "US cine",
    "1.2.840.10008.5.1.4.1.1.7": "secondary capture",
    "1.2.840.10008.5.1.4.1.1.12.1": "XA",
    "1.2.840.10008.5.1.4.1.1.20": "NM",
    "1.2.840.10008.5.1.4.1.1.128": "PET",
    "1.2.840.10008.5.1.4.1.1.77.1.5.1": "OP",
    "1.2.840.10008.5.1.4.1.1.11.1": "presentation state",
    "1.2.840.10008.5.1.4.1.1.88.33": "structured report",
    "1.2.840.10008.5.1.4.1.1.88.59": "key object selection",
    "1.2.840.10008.5.1.4.1.1.104.1": "PDF",
    "1.2.840.10008.5.1.4.1.1.481.3": "RT structure set",
}


@dataclass(frozen=True, slots=True)
class Answer:
    """What a peer said.

    Attributes
    ----------
    echo : status of the C-ECHO, 0x0000 is success; None if none came or the class was refused
    refused : names of common SOP classes that it takes in no syntax
    uncompressed_only : whether it takes none of the compressed syntaxes for any of them
    """

    echo: int | None
    refused: tuple[str, ...]
    uncompressed_only: bool


def probe(name: str, destination: Destination, calling_ae: str, tls: Tls) -> Answer:
    """Ask a destination what it would take; nothing is sent.

    Raises
    ------
    PeerError : it is away, busy, not to be trusted or refuses the association
    TlsError : what it would be shown over TLS is no good
    """
    proposed: list[Pair] = [(VERIFICATION, _IMPLICIT)]
    proposed += [(sop_class, syntax) for sop_class in CLASSES for syntax in SYNTAXES]
    with contextlib.closing(Sender(name, destination, calling_ae, tls)) as sender:
        taken = sender.taken(proposed[:MAX_CONTEXTS])
        echo = sender.echo() if (VERIFICATION, _IMPLICIT) in taken else None
    classes = {sop_class for sop_class, _ in taken}
    compressed = {syntax for _, syntax in taken} - {_EXPLICIT, _IMPLICIT}
    return Answer(
        echo,
        tuple(word for uid, word in CLASSES.items() if uid not in classes),
        uncompressed_only=not compressed,
    )
