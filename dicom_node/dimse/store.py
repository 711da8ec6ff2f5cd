"""The sender: one file to one peer over an association that stays open, and what the peer answered.

Rules that bind here:
1. The bytes of the data set go out as they are in the file: nothing is decoded, converted or left out.
2. An object goes in its own transfer syntax or not at all; a peer that does not take it is told apart from a
   peer that is not there.
3. An association on which anything went wrong is never used again.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from pydicom.errors import InvalidDicomError
from pydicom.uid import UID
from pynetdicom import AE, evt
from pynetdicom.presentation import build_context

from dicom_node.config import Destination
from dicom_node.dimse import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME, patches
from dicom_node.errors import PeerError, SpoolError
from dicom_node.jobs import Send

#: PS3.8 section 9.3.2.2: context ids are the odd numbers of a byte
MAX_CONTEXTS = 128
#: a peer that takes less than this many bytes per second is given up
SLOWEST_BYTES_S = 1 << 16

Pair = tuple[str, str]


def patience_s(destination: Destination, path: Path) -> float:
    """Seconds after which an answer is overdue, counted from the first byte sent.

    Raises SpoolError when the file is not there.
    """
    try:
        size = path.stat().st_size
    except OSError as error:
        raise SpoolError(f"{path.name} is gone from the spool; send the object again") from error
    return destination.timeout_s + size / SLOWEST_BYTES_S


class Sender:
    """A C-STORE SCU for one destination; not for use by two threads, except `abort`.

    Parameters
    ----------
    name : the destination's name in the configuration, for messages
    destination : where to send
    calling_ae : the AE title of this node
    """

    def __init__(self, name: str, destination: Destination, calling_ae: str) -> None:
        patches.apply()
        self._name = name
        self._destination = destination
        self._entity = self._make_entity(calling_ae)
        self._association: Any = None
        #: (SOP class, transfer syntax) pairs proposed on the present or next association, oldest use first
        self._proposed: dict[Pair, None] = {}
        self._message_id = 0

    @property
    def connected(self) -> bool:
        """Whether an association is open."""
        return self._association is not None and bool(self._association.is_established)

    def send(self, send: Send, path: Path) -> int:
        """Send one Part 10 file and return the C-STORE status of the peer, 0..0xFFFF.

        Raises
        ------
        PeerError : retryable when the peer is away, busy, refuses the association or does not answer; not
            retryable when it does not take the object's SOP class in its transfer syntax
        SpoolError : the file cannot be read or is no Part 10 file
        """
        pair = (send.sop_class_uid, send.transfer_syntax_uid)
        self._ensure(pair)
        if not self._takes(pair):
            raise self._no_context(pair)
        return self._store(path, pair)

    def close(self) -> None:
        """Release the association, if one is open."""
        association, self._association = self._association, None
        if association is not None and association.is_established:
            association.release()

    def abort(self) -> None:
        """Break the connection under a send that hangs; from any thread."""
        association = self._association
        if association is not None:
            patches.hang_up(association)

    def _make_entity(self, calling_ae: str) -> Any:
        entity = AE(ae_title=calling_ae)
        entity.implementation_class_uid = IMPLEMENTATION_CLASS_UID
        entity.implementation_version_name = IMPLEMENTATION_VERSION_NAME
        entity.connection_timeout = entity.acse_timeout = self._destination.timeout_s
        entity.network_timeout = self._destination.timeout_s
        return entity

    def _ensure(self, pair: Pair) -> None:
        """Have an association on which `pair` was proposed."""
        known = pair in self._proposed
        self._proposed.pop(pair, None)
        self._proposed[pair] = None
        if self.connected and known:
            return
        self.close()
        while len(self._proposed) > MAX_CONTEXTS:
            del self._proposed[next(iter(self._proposed))]
        self._association = self._associate(pair)

    def _associate(self, pair: Pair) -> Any:
        where = self._destination
        try:
            association = self._entity.associate(
                where.host,
                where.port,
                contexts=[build_context(uid, syntax) for uid, syntax in self._proposed],
                ae_title=where.ae_title,
                evt_handlers=[
                    # else an abort waits in the queue behind everything that a dead peer does not read
                    (evt.EVT_ABORTED, lambda event: patches.hang_up(event.assoc)),
                    (evt.EVT_ESTABLISHED, lambda event: patches.install_gate(event.assoc)),
                ],
            )
        except OSError as error:
            raise self._failure(f"cannot be found at {where.host}: {error.strerror}") from error
        if association.is_established:
            return association
        if association.is_rejected:
            answer = association.acceptor.primitive
            raise self._failure(f"refuses the association: {answer.result_str}, {answer.reason_str}")
        if association.rejected_contexts:
            raise self._no_context(pair)
        raise self._failure(f"cannot be reached at {where.host}:{where.port}")

    def _takes(self, pair: Pair) -> bool:
        return any(
            (context.abstract_syntax, context.transfer_syntax[0]) == pair
            for context in self._association.accepted_contexts
        )

    def _store(self, path: Path, pair: Pair) -> int:
        started = time.monotonic()
        self._message_id = self._message_id % 0xFFFF + 1
        try:
            self._association.dimse_timeout = patience_s(self._destination, path)
            answer = self._association.send_c_store(path, msg_id=self._message_id)
        except RuntimeError as error:  # the association ended since it was looked at
            raise self._failure("closed the association") from error
        except ValueError as error:  # the file says it is something else than the ledger does
            raise self._no_context(pair) from error
        except (OSError, AttributeError, InvalidDicomError) as error:
            raise SpoolError(f"{path.name} cannot be read as a DICOM file; check the disk") from error
        if "Status" in answer:
            return int(answer.Status)
        self.abort()
        raise self._failure(f"gave no answer within {time.monotonic() - started:.1f} s")

    def _failure(self, what: str) -> PeerError:
        return PeerError(f"destination {self._name} ({self._destination.ae_title}) {what}")

    def _no_context(self, pair: Pair) -> PeerError:
        name = [UID(uid).name for uid in pair]
        return PeerError(
            f"destination {self._name} ({self._destination.ae_title}): no presentation context"
            f" for {name[0]} in {name[1]}; let the destination accept it",
            retryable=False,
        )
