"""The audit trail of commands: what a person did with whose images, in the trail of the node beside them.

Loads little where there is no node: these commands answer at once.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from dicom_node.audit.events import (
    ALARMING,
    Accessed,
    Action,
    Alert,
    Event,
    Exported,
    Imported,
    Objects,
    Outcome,
    Party,
    Queried,
    SecurityAlert,
    Study,
)
from dicom_node.audit.grouping import Collected, key_of
from dicom_node.cli.telling import Report
from dicom_node.report import InstanceReport

if TYPE_CHECKING:
    from dicom_node.audit.auditor import Auditor


#: how the keys of a query are told: those of its model, whichever protocol carried them
_STUDY_ROOT_FIND, _EXPLICIT = "1.2.840.10008.5.1.4.1.2.2.1", "1.2.840.10008.1.2.1"


class Told:
    """What a command tells: at once for the first object of a study, at the end for the others together.

    So a folder of a thousand files is a few messages. What cannot be told raises AuditError. Without an
    auditor nothing is told.
    """

    def __init__(self, auditor: Auditor | None) -> None:
        self._auditor = auditor
        self._seen: set[Event] = set()
        self._rest = Collected()

    def allow_restoring(self, files: int | None) -> None:
        """Originals are about to be taken out of so many files, or of what comes; not without a trail."""
        several = "what an archive holds" if files is None else f"{files} files"
        what = f"recover: originals and patient records are to be taken out of {several}"
        self._tell([SecurityAlert(time.time(), Alert.RE_IDENTIFIED, what, Outcome.SUCCESS, person())])

    def restored(self, study: str) -> None:
        """The original of an object of a study was written to a file."""
        self._tell([Exported(time.time(), person(), _one(study))])

    def judged(self, study: str, finding: str) -> None:
        """An object of a study was looked into, with a finding of `blessmark.Finding`."""
        events: list[Event] = [Accessed(time.time(), Action.READ, _one(study), by=person())]
        if finding in ALARMING:
            what = f"the watermark says: {finding}"
            alert = Alert.NOT_AUTHENTIC
            events.append(SecurityAlert(time.time(), alert, what, Outcome.SERIOUS, person(), _one(study)))
        self._tell(events)

    def queried(self, archive: Party, matches: Mapping[str, str]) -> None:
        """An archive is about to be asked, for what matches these keys."""
        keys = "\n".join(f"{name}={value}" for name, value in matches.items()).encode()
        self._tell([Queried(time.time(), person(), archive, _STUDY_ROOT_FIND, _EXPLICIT, keys)])

    def fetched(self, archive: Party, study: str, sop_class: str) -> None:
        """An object of a study came from an archive."""
        objects = Objects(Study(study), ((sop_class, 1),))
        self._tell([Imported(time.time(), person(), archive, objects)])

    def watching(self, reports: Iterator[Report]) -> Iterator[Report]:
        """The reports, each told as it goes by."""
        for report in reports:
            if isinstance(report, InstanceReport):
                self.judged(report.place.study, report.finding)
            yield report

    def close(self) -> None:
        """Tell what was counted. Raises AuditError."""
        rest = self._rest.take()
        if self._auditor is not None and rest:
            self._auditor.require(rest)

    def _tell(self, events: list[Event]) -> None:
        if self._auditor is None:
            return
        first = [event for event in events if key_of(event) not in self._seen]
        self._rest.add(event for event in events if event not in first)
        if first:
            self._auditor.require(first)
        self._seen |= {key_of(event) for event in first}


def told_to(path: Path | None, usual: Path) -> Told:
    """The trail of the node whose configuration is at `path`, or at the usual place if there is one.

    Raises ConfigError, AuditError when there is a configuration and its trail cannot be written to.
    """
    if path is None and not usual.exists():
        return Told(None)
    from dicom_node import config

    loaded = config.load_any(path or usual)
    if not isinstance(loaded, config.Config) or loaded.audit.host is None:
        return Told(None)  # of a machine without a node, or of a node without a trail
    from dicom_node.audit.trail import auditor_of
    from dicom_node.service import log_salt

    return Told(auditor_of(loaded, log_salt(loaded)))


def person() -> Party:
    """Who gave a command: the login, through sudo too, at this machine."""
    from dicom_node.cli.live import login

    return Party(login(), socket.gethostname())


def _one(study: str) -> Objects:
    """An object of a study, of whatever class."""
    return Objects(Study(study), (("", 1),))
