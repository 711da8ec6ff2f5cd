"""The whole file as one frozen value."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

from pydantic import Field

from dicom_node.config.auditing import Audit
from dicom_node.config.clustering import Cluster
from dicom_node.config.committing import Commitment, Requester
from dicom_node.config.kinds import Name, Section
from dicom_node.config.marking import Networks, Watermark, Workers
from dicom_node.config.querying import Query, QueryPeer
from dicom_node.config.receiving import Keys, Node, Storage
from dicom_node.config.routing import Route, fits
from dicom_node.config.securing import Access, Tls
from dicom_node.config.sending import Destination
from dicom_node.config.watching import Http, Log

#: a peer that nothing in the file names
OTHER = "other"


class Config(Section):
    """The whole file, in the order in which an image travels."""

    node: Node
    tls: Tls = Tls()
    access: Access = Access()
    storage: Storage
    #: null: this machine alone, without any server
    cluster: Cluster | None = None
    keys: Keys = Keys()
    watermark: Watermark = Watermark()
    networks: Networks = Networks()
    workers: Workers = Workers()
    destinations: Mapping[Name, Destination] = Field(default_factory=dict)
    routes: Annotated[tuple[Route, ...], Field(min_length=1)]
    commitment: Commitment = Commitment()
    query: Query = Query()
    audit: Audit = Audit()
    http: Http = Http()
    log: Log = Log()

    def route_for(self, calling_ae: str, called_ae: str) -> Route | None:
        """The first route that takes this association, or None: refuse it."""
        return next((route for route in self.routes if route.match.takes(calling_ae, called_ae)), None)

    def peers(self) -> list[str]:
        """Every name under which a peer is counted: those of routes, callers and requesters, and `other`."""
        patterns = [pattern for route in self.routes for pattern in route.match.calling_ae if pattern != "*"]
        patterns += [caller.ae_title for caller in self.access.callers if caller.ae_title != "*"]
        titles = [peer.ae_title for peer in self.commitment.requesters]
        titles += [peer.ae_title for peer in self._committing()]
        return list(dict.fromkeys((*patterns, *titles, OTHER)))

    def peer(self, calling_ae: str) -> str:
        """The one of `peers` under which this AE title is counted: its own, else the first that fits it."""
        title, names = calling_ae.strip(" "), self.peers()
        if title in names:
            return title
        return next((name for name in names if fits(title, (name,))), OTHER)

    def _committing(self) -> list[Destination]:
        return [peer for peer in self.destinations.values() if peer.commitment]

    def answers_commitment(self, calling_ae: str) -> bool:
        """Whether this is the AE title of a destination that is asked for storage commitment."""
        return any(peer.ae_title == calling_ae.strip(" ") for peer in self._committing())

    def requester(self, ae_title: str) -> Requester | None:
        """Where an answer to this AE title goes: as configured, else to the destination of that title."""
        listed = next((peer for peer in self.commitment.requesters if peer.ae_title == ae_title), None)
        if listed is not None:
            return listed
        same = next((peer for peer in self.destinations.values() if peer.ae_title == ae_title), None)
        if same is None:
            return None
        return Requester(
            ae_title=ae_title,
            host=same.host,
            port=same.port,
            tls=same.tls,
            tls_name=same.tls_name,
            timeout_s=same.timeout_s,
        )

    def is_mandatory(self, destination: str) -> bool:
        """Whether an instance is not safe before this destination has it; one that is gone counts as such."""
        peer = self.destinations.get(destination)
        return peer is None or peer.mandatory

    def signs(self, route: Route) -> bool:
        """Whether what a route marks is signed."""
        return self.watermark.sign if route.sign is None else route.sign

    def route(self, name: str) -> Route | None:
        """The route of this name, or None if the file no longer has it."""
        return next((route for route in self.routes if route.name == name), None)


class Workstation(Section):
    """What `dicom-node query` needs of a file: that of a node, or one that holds nothing else.

    An auditor's machine receives nothing and forwards nothing, so it has no node, no storage and no routes.
    """

    keys: Keys = Keys()
    tls: Tls = Tls()
    destinations: Mapping[Name, Destination] = Field(default_factory=dict)
    query: Query

    @classmethod
    def of_node(cls, config: Config) -> Workstation:
        """The same of a node's file; its AE title is the node's unless `query` has another."""
        own = config.query.ae_title or config.node.ae_title
        kept = {name: getattr(config, name) for name in cls.model_fields}
        kept["query"] = config.query.model_copy(update={"ae_title": own})
        return cls.model_construct(config.model_fields_set & set(kept), **kept)

    @property
    def key_ring(self) -> Path | None:
        """The key ring that the file names; None if it names none."""
        return self.keys.ring if "keys" in self.model_fields_set else None

    def peer(self, name: str) -> QueryPeer | None:
        """The archive of this name, a destination included; None if there is none."""
        listed, destination = self.query.peers.get(name), self.destinations.get(name)
        if destination is None or (listed is not None and listed.addressed):
            return listed
        address = {key: getattr(destination, key) for key in ("ae_title", "host", "port", "tls", "tls_name")}
        return (listed or QueryPeer()).model_copy(update=address)

    @property
    def peers(self) -> tuple[str, ...]:
        """The names of every archive that can be asked, those under `query` first."""
        return tuple(dict.fromkeys((*self.query.peers, *self.destinations)))
