"""Who the node is, how it listens, where it keeps what arrives, which keys it has."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from dicom_node.config.kinds import AETitle, File, Port, Section
from dicom_node.config.words import CalledAE, TlsClients


class Node(Section):
    """Who this node is and how it listens."""

    #: written into every watermark
    id: str = Field(pattern=r"^[A-Za-z0-9._-]{1,16}$")
    ae_title: AETitle
    bind: str = Field(default="0.0.0.0", min_length=1)  # noqa: S104 - a store-and-forward node is there to be reached
    #: null is none in the clear
    port: Port | None = 11112
    #: null is none with TLS
    tls_port: Port | None = None
    tls_clients: TlsClients = TlsClients.REQUIRED
    #: processes that receive, on the same ports; 1 is the node's own, `auto` one for each core, at most 4.
    #: The limits below hold for all of them together
    receivers: Literal["auto"] | Annotated[int, Field(ge=1, le=16)] = 1
    max_associations: int = Field(default=50, ge=1, le=1000)
    #: of one calling AE title at one address; a sender that runs wild leaves room for the others
    max_associations_per_peer: int = Field(default=20, ge=1, le=1000)
    #: seconds for which an association may be open with nothing on its way; 60 is what dcm4che allows, twice
    #: what Orthanc does: a modality that pauses for longer opens another
    idle_s: float = Field(default=60.0, ge=1.0, le=86400.0)
    #: seconds that a PDU may take to arrive, an object pause on its way, and an answer wait to be taken
    stall_s: float = Field(default=30.0, ge=1.0, le=3600.0)
    #: bytes; never 0 ("unlimited"): a peer may then claim 4 GiB
    max_pdu: int = Field(default=131072, ge=4096, le=1048576)
    accept_called_ae: CalledAE = CalledAE.ANY


class Storage(Section):
    """Where objects and their states are kept."""

    folder: File
    #: below this much free space new objects are refused with A700
    reserve_mb: int = Field(default=256, ge=16)
    #: seconds for which the bytes of an object stay at least; they go when it is delivered everywhere
    keep_s: float = Field(default=86400.0, ge=3600.0)
    #: days for which a finished object can be traced, and its repetition is known for one
    history_days: int = Field(default=30, ge=1, le=3650)

    @property
    def spool_dir(self) -> Path:
        """Folder of the objects' bytes."""
        return self.folder / "spool"

    @property
    def ledger_path(self) -> Path:
        """The database that holds the state of every job."""
        return self.folder / "ledger.sqlite"

    @property
    def reserve_bytes(self) -> int:
        """`reserve_mb` in bytes."""
        return self.reserve_mb * 1_000_000


class Keys(Section):
    """The secrets."""

    ring: File = Path("/etc/dicom-node/keyring")
    #: the signing keys of this node, which no reader needs; null: it cannot sign
    signing: File | None = None
