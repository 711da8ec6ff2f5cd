"""Peers that know storage commitment: a modality that asks, an archive that answers as it is told.

Both are plain pynetdicom entities on loopback; nothing of the node's own wire code is used.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid
from pynetdicom import AE, build_role, evt
from pynetdicom.presentation import build_context
from pynetdicom.transport import ThreadedAssociationServer

from benchmarks.stand import free_port

CT, MR = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.4"
PUSH, PUSH_INSTANCE = "1.2.840.10008.1.20.1", "1.2.840.10008.1.20.1.1"


def part10(folder: Path, uid: str, content: str = "one") -> Path:
    """A file of a CT image without pixels; nobody on a pass route looks for them."""
    folder.mkdir(exist_ok=True)
    path = folder / f"{uid}-{content}.dcm"
    made = Dataset()
    made.file_meta = FileMetaDataset()
    made.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    made.SOPClassUID, made.SOPInstanceUID, made.PatientID = CT, uid, content
    made.save_as(path, enforce_file_format=True)
    return path


def references(uids: Iterable[str], sop_class: str = CT) -> list[Dataset]:
    made = []
    for uid in uids:
        item = Dataset()
        item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = sop_class, uid
        made.append(item)
    return made


def answers(report: Dataset) -> dict[str, int]:
    """What a report says of each instance: 0 or the failure reason."""
    said = {str(item.ReferencedSOPInstanceUID): 0 for item in report.get("ReferencedSOPSequence", ())}
    failed = report.get("FailedSOPSequence", ())
    return said | {str(item.ReferencedSOPInstanceUID): int(item.FailureReason) for item in failed}


class _Listener:
    """Something that listens on a loopback port and can go away and come back there."""

    title = "PEER"

    def __init__(self) -> None:
        self.port = free_port()
        self._server: Any = None

    def contexts(self) -> list[Any]:
        raise NotImplementedError

    def handlers(self) -> list[Any]:
        raise NotImplementedError

    def start(self) -> Any:
        entity = AE(ae_title=self.title)
        self._server = entity.make_server(
            ("127.0.0.1", self.port),
            server_class=ThreadedAssociationServer,
            contexts=self.contexts(),
            evt_handlers=self.handlers(),
        )
        entity._servers.append(self._server)
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def stop(self) -> None:
        if self._server is None:
            return
        server, self._server = self._server, None
        for association in server.active_associations:
            association.abort()
        server.shutdown()


def _push_context() -> Any:
    context = build_context(PUSH)
    context.scu_role = context.scp_role = True
    return context


class Modality(_Listener):
    """Sends, asks, and listens for the answer; `heard` holds every report as (how it came, data set)."""

    title = "MODALITY"

    def __init__(self, node_port: int) -> None:
        super().__init__()
        self.node_port = node_port
        self.heard: list[tuple[str, Dataset]] = []
        #: statuses for the coming reports; then 0
        self.statuses: list[int] = []
        self.roles: list[Any] = []

    def contexts(self) -> list[Any]:
        return [_push_context()]

    def handlers(self) -> list[Any]:
        return [(evt.EVT_N_EVENT_REPORT, self._hear_on_new), (evt.EVT_REQUESTED, self._note_roles)]

    def _note_roles(self, event: Any) -> None:
        proposed = event.assoc.requestor.role_selection.values()
        self.roles += [(role.scu_role, role.scp_role) for role in proposed]

    def _hear_on_new(self, event: Any) -> tuple[int, None]:
        return self._hear("new", event), None

    def _hear_on_same(self, event: Any) -> tuple[int, None]:
        return self._hear("same", event), None

    def _hear(self, how: str, event: Any) -> int:
        status = self.statuses.pop(0) if self.statuses else 0x0000
        if status == 0x0000:
            self.heard.append((how, event.event_information))
        return status

    def associate(self, *contexts: Any) -> Any:
        association = AE(ae_title=self.title).associate(
            "127.0.0.1",
            self.node_port,
            ae_title="NODE",
            contexts=[build_context(CT, ExplicitVRLittleEndian), build_context(PUSH), *contexts],
            evt_handlers=[(evt.EVT_N_EVENT_REPORT, self._hear_on_same)],
        )
        assert association.is_established
        return association

    def send(self, *paths: Path) -> None:
        association = self.associate()
        assert [int(association.send_c_store(path).Status) for path in paths] == [0] * len(paths)
        association.release()

    def ask(self, *uids: str, transaction: str = "", sop_class: str = CT) -> tuple[str, int]:
        """Ask for commitment and hang up; the Transaction UID and the status of the N-ACTION."""
        association = self.associate()
        try:
            return self.ask_on(association, *uids, transaction=transaction, sop_class=sop_class)
        finally:
            association.release()

    def ask_on(
        self, association: Any, *uids: str, transaction: str = "", sop_class: str = CT, action: int = 1
    ) -> tuple[str, int]:
        wanted = Dataset()
        wanted.TransactionUID = transaction or generate_uid()
        wanted.ReferencedSOPSequence = references(uids, sop_class)
        status, _ = association.send_n_action(wanted, action, PUSH, PUSH_INSTANCE)
        return str(wanted.TransactionUID), int(status.Status)

    def answers(self, transaction: str) -> list[dict[str, int]]:
        """Every answer that came under a Transaction UID."""
        return [answers(said) for _, said in self.heard if said.TransactionUID == transaction]


class Archive(_Listener):
    """Stores everything; answers requests for commitment over `channel`, by `verdict` of each UID.

    `channel` is "same", "new", "never" or "refuse"; `requests` holds every N-ACTION: (Transaction UID, UIDs).
    """

    title = "ARCHIVE"

    def __init__(self, node_port: int) -> None:
        super().__init__()
        self.node_port = node_port
        self.channel = "new"
        self.verdict: Callable[[str], int | None] = lambda uid: 0 if uid in self.stored else 0x0112
        self.stored: dict[str, int] = {}
        self.requests: list[tuple[str, tuple[str, ...]]] = []
        self.statuses: list[int] = []

    def contexts(self) -> list[Any]:
        return [build_context(CT, ExplicitVRLittleEndian), _push_context()]

    def handlers(self) -> list[Any]:
        return [(evt.EVT_C_STORE, self._store), (evt.EVT_N_ACTION, self._requested)]

    def _store(self, event: Any) -> int:
        uid = str(event.request.AffectedSOPInstanceUID)
        self.stored[uid] = self.stored.get(uid, 0) + 1
        return 0x0000

    def _requested(self, event: Any) -> tuple[int, None]:
        said = event.action_information
        transaction = str(said.TransactionUID)
        wanted = [
            (str(item.ReferencedSOPClassUID), str(item.ReferencedSOPInstanceUID))
            for item in said.ReferencedSOPSequence
        ]
        self.requests.append((transaction, tuple(uid for _, uid in wanted)))
        if self.channel == "refuse":
            return 0x0110, None
        if self.channel != "never":
            arguments = (self.channel, event.assoc, self.report_of(transaction, wanted))
            threading.Thread(target=self._answer, args=arguments, daemon=True).start()
        return 0x0000, None

    def report_of(self, transaction: str, wanted: list[tuple[str, str]]) -> Dataset:
        made = Dataset()
        made.TransactionUID = transaction
        made.ReferencedSOPSequence, made.FailedSOPSequence = [], []
        for sop_class, uid in wanted:
            (item,) = references([uid], sop_class)
            verdict = self.verdict(uid)
            if verdict == 0:
                made.ReferencedSOPSequence.append(item)
            elif verdict is not None:
                item.FailureReason = verdict
                made.FailedSOPSequence.append(item)
        return made

    def _answer(self, channel: str, association: Any, report: Dataset) -> None:
        time.sleep(0.2)  # as everybody else, after the response
        # a node that was killed meanwhile hears nothing, and asks again once it is back
        with contextlib.suppress(AssertionError, AttributeError, RuntimeError):
            if channel == "same":
                self.statuses.append(_report(association, report))
            else:
                self.report(report)

    def report(self, report: Dataset) -> int:
        """Report over an association of its own; the status that the node answered."""
        association = AE(ae_title=self.title).associate(
            "127.0.0.1",
            self.node_port,
            ae_title="NODE",
            contexts=[build_context(PUSH)],
            ext_neg=[build_role(PUSH, scp_role=True)],
        )
        assert association.is_established
        status = _report(association, report)
        association.release()
        self.statuses.append(status)
        return status


def _report(association: Any, report: Dataset) -> int:
    event_type = 2 if report.FailedSOPSequence else 1
    status, _ = association.send_n_event_report(report, event_type, PUSH, PUSH_INSTANCE)
    return int(status.Status)
