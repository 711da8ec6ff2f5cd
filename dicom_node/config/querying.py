"""The archives that `dicom-node query` asks, and how objects are fetched from them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Self

from pydantic import Field, model_validator

from dicom_node.config.kinds import AETitle, File, Name, Port, Section
from dicom_node.config.words import Retrieve, RetrieveLevel

_ADDRESS = ("ae_title", "host", "port")
_ONLY_DIMSE = (*_ADDRESS, "tls", "tls_name", "retrieve", "level")
_ONLY_WEB = ("credentials", "ca")


class QueryPeer(Section):
    """An archive that is asked: by DIMSE, by DICOMweb, or the destination of the same name."""

    ae_title: AETitle | None = None
    host: Annotated[str, Field(min_length=1)] | None = None
    port: Port | None = None
    #: whether it is asked over TLS
    tls: bool = False
    #: the name that its certificate must have; null is `host`
    tls_name: str | None = Field(default=None, min_length=1)
    #: base URL of QIDO-RS and WADO-RS
    dicomweb: Annotated[str, Field(pattern=r"^https?://[^\s@]+$")] | None = None
    #: holds `USER:PASSWORD`, or `Bearer TOKEN`, on one line
    credentials: File | None = None
    #: certificates (PEM) that the web server's own is checked by; null is those of this machine
    ca: File | None = None
    retrieve: Retrieve = Retrieve.GET
    level: RetrieveLevel = RetrieveLevel.SERIES
    #: retrievals under way at once
    associations: int = Field(default=1, ge=1, le=4)
    #: seconds of silence after which the peer is taken for gone
    timeout_s: float = Field(default=60.0, gt=0.0, le=3600.0)

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        addressed = [key for key in _ADDRESS if getattr(self, key) is not None]
        misplaced = _ONLY_DIMSE if self.dicomweb is not None else _ONLY_WEB
        foreign = sorted(self.model_fields_set & set(misplaced) - self._empty())
        if foreign:
            kind = (
                "has dicomweb, so it takes no" if self.dicomweb is not None else "has no dicomweb to go with"
            )
            raise ValueError(f"{kind} {', '.join(foreign)}")
        if addressed and len(addressed) < len(_ADDRESS):
            raise ValueError(f"has {', '.join(addressed)}; all of {', '.join(_ADDRESS)} are needed, or none")
        return self

    def _empty(self) -> set[str]:
        return {key for key in self.model_fields_set if getattr(self, key) is None}

    @property
    def addressed(self) -> bool:
        """Whether it says where it is; else it is the destination of its name."""
        return self.dicomweb is not None or self.ae_title is not None


class Query(Section):
    """What asks archives, and where C-MOVE sends to."""

    #: towards the archives; null is node.ae_title, in a file without a node DICOMNODE
    ae_title: AETitle | None = None
    #: where the temporary Storage SCP for C-MOVE listens
    bind: str = Field(default="0.0.0.0", min_length=1)  # noqa: S104 - the archive must reach it
    port: Port = 11113
    peers: Mapping[Name, QueryPeer] = Field(default_factory=dict)
