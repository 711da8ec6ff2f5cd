"""The audit trail as a running node keeps it, and as a command beside it writes to it."""

from __future__ import annotations

import hashlib
import logging
import os
import socket
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from dicom_node import keys, log, security
from dicom_node.audit.auditor import Auditor
from dicom_node.audit.clerk import Clerk
from dicom_node.audit.courier import Courier
from dicom_node.audit.events import (
    Alert,
    ApplicationStarted,
    ApplicationStopped,
    Event,
    Outcome,
    Party,
    SecurityAlert,
)
from dicom_node.audit.history import site_of
from dicom_node.audit.message import Origin
from dicom_node.audit.repository import Context, repository_of
from dicom_node.audit.store import Store
from dicom_node.audit.subjects import Subjects
from dicom_node.audit.syslog import Label
from dicom_node.blobs.port import BlobStore
from dicom_node.config import Config
from dicom_node.errors import AuditError, KeyFileError
from dicom_node.ledger import Ledger

_LOG = logging.getLogger(__name__)
#: share of the disk's reserve that audit messages leave free
_SPARE_SHARE = 2


def folder_of(config: Config) -> Path:
    """Where a node keeps its audit messages."""
    return config.storage.folder / "audit"


def store_of(config: Config) -> Store:
    """The messages of a node. Raises AuditError when the folder cannot be used."""
    return Store(folder_of(config), config.audit.keep_messages, config.storage.reserve_bytes // _SPARE_SHARE)


def auditor_of(config: Config, salt: bytes) -> Auditor | None:
    """Who takes the events of a node or of a command beside it; None where the trail is switched off."""
    audit = config.audit
    if audit.host is None:
        return None
    host, pid = socket.gethostname(), os.getpid()
    origin = Origin(
        node=config.node.id,
        ae_title=config.node.ae_title,
        host=host,
        pid=pid,
        site=audit.enterprise_site,
        source_type=audit.source_type,
        patient=audit.patient,
        salt=salt,
    )
    label = Label(audit.facility, audit.severity, audit.message_id, host, pid)
    return Auditor(store_of(config), origin, label, repeats_s=audit.aggregate_s)


class AuditTrail:
    """Everything that tells, and brings away, what a running node does.

    Parameters
    ----------
    config : with `audit.host`
    auditor : who takes events
    ledger, spool : where the node keeps what it does, and to what
    context : gives the TLS settings of the connection to the repository; None for one in the clear
    follows : whether it tells what the ledger says from the start; else between `follow` and `follow_no_more`
    """

    def __init__(
        self,
        config: Config,
        auditor: Auditor,
        ledger: Ledger,
        spool: BlobStore,
        context: Context | None,
        *,
        follows: bool = True,
    ) -> None:
        self._config = config
        self._auditor = auditor
        self._ledger, self._spool, self._follows = ledger, spool, follows
        self._clerk: Clerk | None = None
        #: a reload and the start of a lead come from two threads
        self._turn = threading.Lock()
        self._courier = Courier(auditor.store, repository_of(config.audit, context))

    def start(self) -> None:
        """Say that the node starts, and what was changed since it last did; then follow it."""
        self._auditor.tell(ApplicationStarted(time.time()))
        self._tell_changes()
        self._courier.start()
        if self._follows:
            self.follow()

    def follow(self) -> None:
        """Tell from now on what the ledger says; of several nodes one does."""
        with self._turn:
            site = site_of(self._config, self._auditor.origin.host)
            aggregate_s = self._config.audit.aggregate_s
            shared = self._config.cluster is not None
            subjects = Subjects(self._spool)
            self._clerk = Clerk(self._ledger, self._auditor, site, subjects, aggregate_s, shared=shared)
            self._clerk.start()

    def follow_no_more(self) -> None:
        """Tell what is left of it, and leave the rest to another node."""
        with self._turn:
            clerk, self._clerk = self._clerk, None
        if clerk is not None:
            clerk.stop()

    def stop(self) -> None:
        """Tell what is left, then that the node has stopped."""
        self.follow_no_more()
        self._auditor.tell(ApplicationStopped(time.time()))
        self._courier.stop()

    def adopt(self, config: Config) -> None:
        """Say that the configuration was changed, and name peers and routes as it does from now on."""
        with self._turn:
            self._config = config
            if self._clerk is not None:
                self._clerk.adopt(site_of(config, self._auditor.origin.host))
        self._tell_changes()

    def _tell_changes(self) -> None:
        for event in self._changes():
            self._auditor.tell(event)

    def _changes(self) -> Sequence[Event]:
        """Alerts about a configuration or a key ring that is another than when it was last looked at."""
        seen = fingerprints(self._config)
        try:
            before = self._auditor.store.state().seen
            self._auditor.store.note(seen=seen)
        except AuditError as error:
            log.event(_LOG, "audit-held-up", level=logging.ERROR, error=error)
            return []
        if before is None:
            return []
        return [
            SecurityAlert(time.time(), alert, what, Outcome.SUCCESS)
            for name, alert, what in _FINGERPRINTED
            if before.get(name) != seen[name]
        ]


def refusals(auditor: Auditor) -> security.Listener:
    """Tells an auditor what `security` is told: who was not let in, or proved not to be who he says."""

    def refused(occurrence: security.Occurrence) -> None:
        called = f" calling {occurrence.called_ae}" if occurrence.called_ae else ""
        auditor.tell(
            SecurityAlert(
                time.time(),
                Alert.ASSOCIATION_REFUSED,
                f"{occurrence.event}: {occurrence.reason}{called}",
                Outcome.SERIOUS,
                Party(occurrence.calling_ae or "", occurrence.peer),
            )
        )

    return refused


_FINGERPRINTED = (
    (
        "configuration",
        Alert.CONFIGURATION_CHANGED,
        "the configuration is another than before",
    ),
    ("keys", Alert.KEYS_CHANGED, "the key ring holds other keys than before"),
)


def fingerprints(config: Config) -> dict[str, str]:
    """Digests of the configuration and of which keys there are; of no secret."""
    try:
        ring = repr(keys.describe(config.keys.ring))
    except KeyFileError:  # a node that only passes on needs none
        ring = ""
    return {
        "configuration": hashlib.sha256(config.model_dump_json().encode()).hexdigest(),
        "keys": hashlib.sha256(ring.encode()).hexdigest(),
    }
