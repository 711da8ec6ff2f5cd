"""An archive in this process: answers C-FIND, C-GET and C-MOVE from a list of instances, or misbehaves."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from pydicom.dataset import Dataset
from pynetdicom import AE, evt
from pynetdicom.presentation import build_context
from pynetdicom.transport import ThreadedAssociationServer

from dicom_node.config import QueryPeer
from tests import builders

CT, MR = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.4"
EXPLICIT, IMPLICIT = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2"
_ROOT = "1.2.840.10008.5.1.4.1.2."
FIND, MOVE, GET = (f"{_ROOT}2.1", f"{_ROOT}2.2", f"{_ROOT}2.3")
PATIENT_FIND = f"{_ROOT}1.1"
_UNIQUE = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")
_OF_LEVEL = {"PATIENT": "PatientID", "STUDY": _UNIQUE[0], "SERIES": _UNIQUE[1], "IMAGE": _UNIQUE[2]}


def instance(number: int, *, series: int = 0, sop_class: str = CT, **more: Any) -> Dataset:
    """A small image; its UIDs follow from the numbers."""
    return builders.ct(
        16,
        16,
        seed=number,
        **{
            "SOPClassUID": sop_class,
            "SOPInstanceUID": f"1.2.3.{number}",
            "SeriesInstanceUID": f"1.2.30.{series}",
            "StudyInstanceUID": "1.2.300",
            "PatientID": "P1",
            "StudyDate": "20240105",
            "InstanceNumber": number,
            **more,
        },
    )


@dataclass
class Shelf:
    """The instances of an archive, and how it behaves."""

    instances: list[Dataset]
    #: the final status of C-FIND, C-GET and C-MOVE; None is success
    status: int | None = None
    #: status of every match
    pending: int = 0xFF00
    #: C-GET and C-MOVE: what is sent in place of what was asked for
    instead: Callable[[list[Dataset]], list[Dataset]] = lambda found: found
    #: called before every object that is sent, with the event and its number
    before_each: Callable[[Any, int], object] = lambda event, number: None
    #: called before a C-FIND is answered
    before_find: Callable[[Any], None] = lambda event: None
    classes: tuple[str, ...] = (CT, MR)
    #: where C-MOVE finds the auditor
    auditor_port: int = 0
    finds: list[Dataset] = field(default_factory=list)
    gets: list[Dataset] = field(default_factory=list)
    cancelled: int = 0
    associations: int = 0
    #: of the last association: the storage classes with the transfer syntaxes that were proposed
    proposed: list[tuple[str, str]] = field(default_factory=list)

    def matches(self, asked: Dataset) -> list[Dataset]:
        found = self.instances
        for key in (*_UNIQUE, "PatientID"):
            value = asked.get(key)
            if value:
                wanted = [value] if isinstance(value, str) else list(value)
                found = [ds for ds in found if ds.get(key) in wanted or str(wanted[0]).endswith("*")]
        return found

    def on_find(self, event: Any) -> Iterator[tuple[int, Dataset | None]]:
        self.finds.append(event.identifier)
        self.before_find(event)
        seen: set[str] = set()
        key = _OF_LEVEL[event.identifier.QueryRetrieveLevel]
        for ds in self.matches(event.identifier):
            if event.is_cancelled:
                self.cancelled += 1
                yield 0xFE00, None
                return
            if ds.get(key) not in seen:
                seen.add(str(ds.get(key)))
                yield self.pending, self._answer(event.identifier, ds)
        if self.status is not None:
            yield self.status, None

    def _answer(self, asked: Dataset, ds: Dataset) -> Dataset:
        answer = Dataset()
        for element in asked:
            setattr(answer, element.keyword, ds.get(element.keyword, ""))
        answer.QueryRetrieveLevel = asked.QueryRetrieveLevel
        return answer

    def on_get(self, event: Any) -> Iterator[Any]:
        self.gets.append(event.identifier)
        yield from self._sent(event)

    def on_move(self, event: Any) -> Iterator[Any]:
        self.gets.append(event.identifier)
        if not self.auditor_port:
            yield None, None
            return
        yield "127.0.0.1", self.auditor_port, {"contexts": [build_context(CT), build_context(MR)]}
        yield from self._sent(event)

    def _sent(self, event: Any) -> Iterator[Any]:
        found = self.instead(self.matches(event.identifier))
        yield len(found)
        for number, ds in enumerate(found):
            self.before_each(event, number)
            if self.status is not None:
                yield self.status, Dataset()
                return
            yield 0xFF00, ds

    def on_accepted(self, event: Any) -> None:
        self.associations += 1
        contexts = event.assoc.requestor.primitive.presentation_context_definition_list
        self.proposed = [(str(c.abstract_syntax), str(c.transfer_syntax[0])) for c in contexts]

    @contextlib.contextmanager
    def open(self, **peer: Any) -> Iterator[QueryPeer]:
        """Listen; gives the settings of a machine that asks."""
        entity = AE(ae_title="SHELF")
        entity.maximum_pdu_size = 0
        contexts = [build_context(model, [EXPLICIT, IMPLICIT]) for model in (FIND, PATIENT_FIND, GET, MOVE)]
        storage = [build_context(uid, [EXPLICIT, IMPLICIT]) for uid in self.classes]
        for context in storage:
            context.scu_role = context.scp_role = True
        server = entity.make_server(
            ("127.0.0.1", 0),
            server_class=ThreadedAssociationServer,
            contexts=contexts + storage,
            evt_handlers=[
                (evt.EVT_C_FIND, self.on_find),
                (evt.EVT_C_GET, self.on_get),
                (evt.EVT_C_MOVE, self.on_move),
                (evt.EVT_ACCEPTED, self.on_accepted),
            ],
        )
        entity._servers.append(server)
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        settings = {"ae_title": "SHELF", "host": "127.0.0.1", "port": server.server_address[1]}
        try:
            yield QueryPeer.model_validate({**settings, "timeout_s": 60.0, **peer}, strict=False)
        finally:
            server.shutdown()
