"""The peers that objects are sent to, and how they are tried again."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import AfterValidator, Field, model_validator

from dicom_node.config.kinds import AETitle, Hours, Name, Port, Section, without_repeats
from dicom_node.config.words import Plain, Transcode
from dicom_node.windows import Window
from dicom_node.windows import parse as parse_window


class RetryPolicy(Section):
    """How a destination is tried again."""

    first_s: float = Field(default=5.0, gt=0.0, le=86400.0)
    factor: float = Field(default=2.0, ge=1.0, le=10.0)
    cap_s: float = Field(default=900.0, gt=0.0, le=86400.0)
    #: share of the delay by which it is spread, so that a returning archive is not stormed
    jitter: float = Field(default=0.2, ge=0.0, le=0.9)
    #: attempts after which a silent or busy destination is given up; null is never
    give_up_after: Annotated[int, Field(ge=1)] | None = None
    #: attempts after which an object that the destination refuses becomes a dead letter
    refusals: int = Field(default=3, ge=1)

    @model_validator(mode="after")
    def _cap_above_first(self) -> Self:
        if self.cap_s < self.first_s:
            raise ValueError("cap_s is below first_s; the cap is the longest delay")
        return self


class Destination(Section):
    """A peer that objects are sent to."""

    ae_title: AETitle
    host: str = Field(min_length=1)
    port: Port
    #: whether it is spoken to over TLS
    tls: bool = False
    #: the name that its certificate must have; null is `host`
    tls_name: str | None = Field(default=None, min_length=1)
    associations: int = Field(default=2, ge=1, le=4)
    timeout_s: float = Field(default=30.0, gt=0.0, le=3600.0)
    transcode: Transcode = Transcode.LOSSLESS
    #: what to convert to, best first; big endian is retired, and a compressed syntax could be refused as well
    transcode_to: Annotated[tuple[Plain, ...], Field(min_length=1), AfterValidator(without_repeats)] = (
        Plain.EXPLICIT,
        Plain.IMPLICIT,
    )
    #: hours of the day, local time, outside which its queue waits; none is always
    windows: Annotated[tuple[Hours, ...], AfterValidator(without_repeats)] = ()
    #: the destination that takes its deliveries while it is down; null is none
    failover: Name | None = None
    #: seconds for which it must have been down before
    failover_after_s: float = Field(default=600.0, ge=0.0, le=604800.0)
    retry: RetryPolicy = RetryPolicy()
    #: whether the node waits for it before it commits to an instance
    mandatory: bool = True
    #: whether it is asked to commit to what it was sent; until it does, the bytes stay here
    commitment: bool = False

    @property
    def open_hours(self) -> tuple[Window, ...]:
        """`windows`, understood."""
        return tuple(parse_window(text) for text in self.windows)
