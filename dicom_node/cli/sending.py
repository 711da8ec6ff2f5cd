"""Files sent to a destination one by one, without a node: converted where need be, tried again once."""

from __future__ import annotations

from pathlib import Path

from pydicom.filereader import read_file_meta_info

from dicom_node.config import Destination, Tls
from dicom_node.convert import converted
from dicom_node.dimse.store import Sender
from dicom_node.errors import NodeError, PeerError
from dicom_node.jobs import Send
from dicom_node.retry import Meaning, classify
from dicom_node.transcode import alternatives

#: files in a row for which a destination is not there at all before the command ends
_GIVE_UP = 3


class Courier:
    """Delivers files to one destination over an association that stays open.

    Parameters
    ----------
    name, destination : where to
    calling_ae : the AE title of this machine
    tls : what this machine shows and believes, where the destination is spoken to over TLS
    """

    def __init__(self, name: str, destination: Destination, calling_ae: str, tls: Tls) -> None:
        self._destination = destination
        self._sender = Sender(name, destination, calling_ae, tls)
        self._gone = 0

    def deliver(self, path: Path) -> str:
        """Send a Part 10 file; "" when the destination has it, else why not.

        Raises PeerError when the destination is not there any more.
        """
        for attempt in (1, 2):
            try:
                status = self._sent(path)
            except PeerError as error:
                if attempt == 1 and error.retryable:
                    continue
                self._gone = self._gone + 1 if error.retryable else 0
                if self._gone >= _GIVE_UP:
                    raise
                return str(error)
            except NodeError as error:
                return str(error)
            self._gone = 0
            if classify(status) in (Meaning.DONE, Meaning.WARNING):
                return ""
            if classify(status) is not Meaning.TRANSIENT:
                break
        return f"the destination refuses it with status {status:04X}; see its log"

    def close(self) -> None:
        """Release the association."""
        self._sender.close()

    def _sent(self, path: Path) -> int:
        meta = read_file_meta_info(path)
        own = str(meta.TransferSyntaxUID)
        send = Send(
            0, 0, 1, "", "", str(meta.MediaStorageSOPClassUID), str(meta.MediaStorageSOPInstanceUID), own
        )
        syntax = self._sender.agree(send, alternatives(self._destination, own))
        if syntax == own:
            return self._sender.send(send, path, own)
        other = path.with_suffix(".converted")
        try:
            with other.open("wb") as file:
                file.writelines(converted(path, syntax))
            return self._sender.send(send, other, syntax)
        finally:
            other.unlink(missing_ok=True)
