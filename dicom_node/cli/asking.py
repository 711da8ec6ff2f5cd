"""Which archive a command line names, and what it asks for."""

from __future__ import annotations

import argparse
import contextlib
import re
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dicom_node import archives, config
from dicom_node.archives import Collection, Source
from dicom_node.audit.events import Party
from dicom_node.cli.trail import Told, told_to
from dicom_node.config import Destination, Query, QueryPeer, Retrieve, RetrieveLevel, Tls, Workstation
from dicom_node.errors import UsageError
from dicom_node.inquiry import Inquiry, Level, Order

_ADDRESS = re.compile(r"(?P<ae>[ -\[\]-~]{1,16})@(?P<host>\[[0-9A-Fa-f:.]+\]|[^@:\s]+):(?P<port>[0-9]{1,5})")
_UIDS = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")


@dataclass(frozen=True, slots=True)
class Asked:
    """An archive, and what is wanted of it."""

    name: str
    source: Source
    peer: QueryPeer
    query: Query
    inquiry: Inquiry
    #: who is told what is asked and what comes
    trail: Told

    @property
    def archive(self) -> Party:
        """The archive, as it takes part in what is told."""
        return Party(self.peer.ae_title or self.name, self.peer.host or "")

    def called(self, uid: str) -> str:
        """What to call an instance in a report."""
        return f"{self.name}:{uid}"

    def orders(self) -> Iterator[Order]:
        """Everything wanted, request by request."""
        return archives.orders(archives.found(self.source, self.inquiry), self._level())

    def _level(self) -> RetrieveLevel:
        """What one request fetches: never more than was asked for."""
        if self.inquiry.matched_at(Level.IMAGE):
            return RetrieveLevel.IMAGE
        whole_studies = self.peer.dicomweb is None and not self.inquiry.matched_at(Level.SERIES)
        if self.peer.level is RetrieveLevel.STUDY and not whole_studies:
            return RetrieveLevel.SERIES
        return self.peer.level

    def collected(self, folder: Path, orders: Iterable[Order], *, durable: bool = False) -> Collection:
        """Have orders fetched into a folder in the background."""
        return Collection(self.source, folder, orders, self.peer.associations, durable=durable)


def keys_of(args: argparse.Namespace) -> Path:
    """The key ring: of the command line, else of the configuration if one is read, else the usual one."""
    if args.keys is not None:
        return Path(args.keys)
    return _workstation(args, args.peer).key_ring or Path(args.default_keys)


@contextlib.contextmanager
def opened(args: argparse.Namespace) -> Iterator[Asked]:
    """The archive that the command line names, and what is asked; at the end says what was odd about it."""
    workstation = _workstation(args, args.peer)
    peer, query = _peer(args, workstation), _query(args, workstation.query)
    inquiry = inquiry_of(args)
    trail = told_to(args.config, args.default_config)
    source = archives.opened(_called(args.peer), peer, query, workstation.tls)
    asked = Asked(_called(args.peer), source, peer, query, inquiry, trail)
    try:
        trail.queried(asked.archive, inquiry.matches)
        yield asked
        trail.close()
    finally:
        source.close()
        for note in source.notes:
            print(f"note: archive {source.name}: {note}", file=sys.stderr)


def _called(peer: str) -> str:
    """What an archive is called: its name, or of an address the AE title or host."""
    address = _ADDRESS.fullmatch(peer)
    if address is not None:
        return address["ae"]
    return peer.split("/")[2] if _is_url(peer) else peer


def _is_url(peer: str) -> bool:
    return peer.startswith(("http://", "https://"))


def _workstation(args: argparse.Namespace, *names: str) -> Workstation:
    """The configuration, if one is named or anything must be looked up in it."""
    literal = all(_is_url(name) or _ADDRESS.fullmatch(name) for name in names)
    if args.config is None and literal:
        return Workstation(query=Query())
    return config.load_workstation(args.config or args.default_config)


def _peer(args: argparse.Namespace, workstation: Workstation) -> QueryPeer:
    address = _ADDRESS.fullmatch(args.peer)
    if address is not None:
        peer = QueryPeer(**_where(address))
    elif _is_url(args.peer):
        peer = _of_url(args.peer, args.credentials)
    else:
        known = workstation.peer(args.peer)
        if known is None:
            there = ", ".join(workstation.peers) or "none"
            raise UsageError(f"--peer {args.peer}: no archive has this name; there are {there}")
        peer = known
    if args.retrieve is not None:
        peer = peer.model_copy(update={"retrieve": Retrieve(args.retrieve)})
    return peer


def _of_url(url: str, credentials: Path | None) -> QueryPeer:
    try:
        return QueryPeer(dicomweb=url, credentials=credentials)
    except ValueError as error:
        raise UsageError(
            "--peer: a base URL has no blanks and no user; credentials go into a file"
        ) from error


def _where(address: re.Match[str]) -> dict[str, Any]:
    port = int(address["port"])
    if not 1 <= port <= 65535:
        raise UsageError("a port is a number from 1 to 65535")
    return {"ae_title": address["ae"], "host": address["host"].strip("[]"), "port": port}


def tls_of(args: argparse.Namespace, name: str) -> Tls:
    """What this machine shows and believes towards a destination."""
    return _workstation(args, name).tls


def destination_of(args: argparse.Namespace, name: str) -> Destination:
    """The destination that `send --to` names; raises UsageError."""
    address = _ADDRESS.fullmatch(name)
    if address is not None:
        return Destination.model_validate(_where(address))
    workstation = _workstation(args, name)
    known = workstation.destinations.get(name)
    if known is None:
        there = ", ".join(workstation.destinations) or "none"
        raise UsageError(f"--to {name}: no destination has this name; there are {there}")
    return known


def _query(args: argparse.Namespace, query: Query) -> Query:
    given = {"ae_title": args.aet, "port": args.port}
    return query.model_copy(update={key: value for key, value in given.items() if value is not None})


def inquiry_of(args: argparse.Namespace) -> Inquiry:
    """The question that the options put together; raises UsageError if it asks for nothing, or nonsense."""
    matches = {key: value for key in args.filters if (value := getattr(args, key)) is not None}
    matches |= dict(args.match)
    for key in _UIDS:
        if key in matches:
            matches[key] = re.sub(r"\s*,\s*", r"\\", matches[key])
    if "SOPInstanceUID" in matches and "SeriesInstanceUID" not in matches:
        raise UsageError("--instance needs its --series and --study: archives are asked from the study down")
    if "SeriesInstanceUID" in matches and "StudyInstanceUID" not in matches:
        raise UsageError("--series needs its --study: archives are asked from the study down")
    if args.action == "list":
        inquiry = Inquiry(_level(args, matches), matches, tuple(args.wanted))
    elif bool(matches) == args.all:
        raise UsageError("say which objects: --study UID, --patient-id ID, --date ...; or --all")
    else:
        inquiry = Inquiry(Level.IMAGE, matches)
    inquiry.check()
    return inquiry


def _level(args: argparse.Namespace, matches: dict[str, str]) -> Level:
    if args.level is not None:
        return Level(args.level)
    if "SeriesInstanceUID" in matches:
        return Level.IMAGE
    return Level.SERIES if "StudyInstanceUID" in matches else Level.STUDY
