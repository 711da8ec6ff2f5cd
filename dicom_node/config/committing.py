"""Storage commitment: to whom it is answered, and how it is asked for."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field

from dicom_node.config.kinds import AETitle, Port, Section, without_repeats
from dicom_node.config.sending import RetryPolicy
from dicom_node.config.words import Promise


class Requester(Section):
    """A peer that may ask for storage commitment, and where its answer goes."""

    ae_title: AETitle
    host: str = Field(min_length=1)
    port: Port
    tls: bool = False
    tls_name: str | None = Field(default=None, min_length=1)
    timeout_s: float = Field(default=30.0, gt=0.0, le=3600.0)


class ReportPolicy(RetryPolicy):
    """How a peer is tried again that is owed an answer about storage commitment."""

    #: attempts after which a silent or busy peer is given up, about ten days; it may ask again
    give_up_after: Annotated[int, Field(ge=1)] | None = 1000


class Asking(Section):
    """How destinations with `commitment` are asked."""

    #: instances in one request; an answer names all of them in one data set
    batch: int = Field(default=500, ge=1, le=10000)
    #: seconds for which a request waits for more instances
    collect_s: float = Field(default=10.0, ge=0.0, le=86400.0)
    #: seconds after which an answer is overdue and the request is made again, under a new Transaction UID
    answer_s: float = Field(default=3600.0, ge=1.0, le=604800.0)
    #: seconds for which the association stays open, for peers that answer on the same one
    linger_s: float = Field(default=10.0, ge=0.0, le=3600.0)
    #: times that an instance is sent or asked for again after a refusal before it is a dead letter
    refusals: int = Field(default=3, ge=0, le=100)


def _without_repeated_titles(peers: tuple[Requester, ...]) -> tuple[Requester, ...]:
    without_repeats(tuple(peer.ae_title for peer in peers))
    return peers


class Commitment(Section):
    """Storage commitment, given to peers and asked of destinations."""

    promise: Promise = Promise.DELIVERED
    #: seconds for which an answer waits for instances that are still under way
    wait_s: float = Field(default=3600.0, ge=0.0, le=604800.0)
    requesters: Annotated[tuple[Requester, ...], AfterValidator(_without_repeated_titles)] = ()
    #: whether the association of the request may carry the answer when no other can be had
    same_association: bool = False
    retry: ReportPolicy = ReportPolicy()
    ask: Asking = Asking()
