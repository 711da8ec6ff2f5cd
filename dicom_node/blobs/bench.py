"""Where an object is written, on this machine, before a shared store has it.

A spool without objects: its parts, its sweep and its look at the free space, and nothing under a final name.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from dicom_node.errors import BlobsUnavailable, SpoolError
from dicom_node.spool import Spool, Writer


class Bench(Spool):
    """A folder for what is being written.

    Parameters
    ----------
    folder : made if absent
    reserve_bytes : free space below which `check_room` refuses
    publish : called with a whole file and its name; on return the store has it
    shared : whether the folder is the store's own, elsewhere: then the file must be on its disk before
        `publish` is called, and what fails may work later
    """

    def __init__(
        self, folder: Path, reserve_bytes: int, publish: Callable[[Path, str], None], *, shared: bool
    ) -> None:
        self._hand_over = publish
        self._shared = shared
        super().__init__(folder, reserve_bytes)

    def writer(self) -> Writer:
        """A new object, to be written piece by piece; `keep` hands it to the store."""
        return self.writer_to(self._hand_over)

    def writer_to(self, publish: Callable[[Path, str], None]) -> Writer:
        """As `writer`, for a file that goes elsewhere: `publish` is called with it and its name."""
        part = self.folder / "tmp" / self._part_name()
        with self._failures():
            handle = os.open(part, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        fcntl.flock(handle, fcntl.LOCK_EX)  # tells the sweep that somebody is alive behind this file
        return Writer(part, handle, self._failures, publish, durable=self._shared)

    def check_room_for(self, size: int) -> None:
        """Raise SpoolFull unless so many bytes more leave half of the reserve free."""
        self._check_half(size)

    def part(self) -> Path:
        """A new name in the folder of what is being written."""
        return self.folder / "tmp" / self._part_name()

    def _take_reserve(self) -> None:
        """No ledger shares this disk, so nothing is set aside for one."""

    @contextlib.contextmanager
    def _failures(self, what: str = "the store of objects") -> Iterator[None]:
        try:
            with super()._failures(what):
                yield
        except SpoolError as error:
            if self._shared and type(error) is SpoolError:
                raise BlobsUnavailable(f"{error} and the mount") from error
            raise

    def _make_folders(self) -> None:
        (self.folder / "tmp").mkdir(mode=0o700, parents=True, exist_ok=True)
