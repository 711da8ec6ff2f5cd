"""The audit trail of commands: what a person did with whose images, in the trail of the node."""

from __future__ import annotations

import socket
import time
from pathlib import Path

from pydicom.dataset import Dataset

from dicom_node import config
from dicom_node.audit.auditor import Auditor
from dicom_node.audit.events import (
    Accessed,
    Action,
    Alert,
    Event,
    Exported,
    Objects,
    Outcome,
    Party,
    SecurityAlert,
)
from dicom_node.audit.grouping import key_of, together
from dicom_node.audit.history import ALARMING
from dicom_node.audit.subjects import study_of
from dicom_node.audit.trail import auditor_of
from dicom_node.cli.live import login
from dicom_node.service import log_salt


class Told:
    """What a command tells: at once for the first object of a study, at the end for the others together.

    So nothing is done to a study without a trail, and a folder of a thousand files is a few messages. What
    cannot be told raises AuditError before it is done. Without an auditor nothing is told.
    """

    def __init__(self, auditor: Auditor | None) -> None:
        self._auditor = auditor
        self._seen: set[Event] = set()
        self._rest: list[Event] = []

    def restored(self, ds: Dataset) -> None:
        """The original of an object is about to be written to a file; `ds` is that original."""
        objects = _objects(ds)
        what = "a patient record and an original image were taken out of a watermark"
        alert = SecurityAlert(time.time(), Alert.RE_IDENTIFIED, what, Outcome.SUCCESS, person(), objects)
        self._tell([Exported(time.time(), person(), objects), alert])

    def judged(self, objects: Objects, finding: str) -> None:
        """An object was looked into, with a finding of `blessmark.Finding`."""
        events: list[Event] = [Accessed(time.time(), Action.READ, objects, by=person())]
        if finding in ALARMING:
            what = f"the watermark says: {finding}"
            events.append(
                SecurityAlert(time.time(), Alert.NOT_AUTHENTIC, what, Outcome.SERIOUS, person(), objects)
            )
        self._tell(events)

    def read(self, ds: Dataset, finding: str) -> None:
        """As `judged`, of a data set."""
        if self._auditor is not None:
            self.judged(_objects(ds), finding)

    def close(self) -> None:
        """Tell what was counted. Raises AuditError."""
        if self._auditor is not None and self._rest:
            self._auditor.require(together(self._rest))
            self._rest = []

    def _tell(self, events: list[Event]) -> None:
        if self._auditor is None:
            return
        first = [event for event in events if key_of(event) not in self._seen]
        self._rest = together([*self._rest, *(event for event in events if event not in first)])
        if first:
            self._auditor.require(first)
        self._seen |= {key_of(event) for event in first}


def told_to(path: Path | None, usual: Path) -> Told:
    """The trail of the node whose configuration is at `path`, or at the usual place if there is one.

    Raises ConfigError, AuditError when there is a configuration and its trail cannot be written to.
    """
    if path is None and not usual.exists():
        return Told(None)
    loaded = config.load(path or usual)
    return Told(None if loaded.audit.host is None else auditor_of(loaded, log_salt(loaded)))


def person() -> Party:
    """Who gave a command: the login, through sudo too, at this machine."""
    return Party(login(), socket.gethostname())


def _objects(ds: Dataset) -> Objects:
    return Objects(study_of(ds), ((str(ds.get("SOPClassUID", "")), 1),))
