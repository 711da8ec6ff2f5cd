"""Secrets stay with this process: files that only their owner reads, memory that no core file shows."""

from __future__ import annotations

import contextlib
import ctypes
import logging
import os
import resource
import stat
import sys
from pathlib import Path

from dicom_node import log
from dicom_node.config import CREDENTIAL
from dicom_node.errors import KeyFileError

_LOG = logging.getLogger(__name__)
#: prctl(2)
_PR_GET_DUMPABLE, _PR_SET_DUMPABLE = 3, 4


def read_text(path: Path, remedy: str) -> str:
    """The ASCII text of a file of secrets, if nobody else can read or write it.

    Parameters
    ----------
    path : the file; `credential:NAME` where the service manager has handed over none of that name
    remedy : what to do if there is none

    Raises
    ------
    KeyFileError : absent, unreadable, readable by others, owned by somebody else, or not plain ASCII
    """
    if str(path).startswith(CREDENTIAL):
        raise KeyFileError(
            f"{path}: $CREDENTIALS_DIRECTORY is not set; LoadCredential= in the service's unit sets it"
        )
    try:
        with path.open("r", encoding="ascii") as file:
            check(path, os.fstat(file.fileno()))
            return file.read()
    except FileNotFoundError as error:
        raise KeyFileError(f"{path} does not exist; {remedy}") from error
    except OSError as error:
        raise KeyFileError(f"{path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise KeyFileError(f"{path} is not plain ASCII text") from error


def check(path: Path, facts: os.stat_result) -> None:
    """Raise KeyFileError unless `facts` are those of a regular file that nobody but its owner can touch."""
    if not stat.S_ISREG(facts.st_mode):
        raise KeyFileError(f"{path} is not a regular file")
    # what systemd hands over it guards itself: by a list that looks like the right of a group to read
    open_to = 0o027 if is_credential(path) else 0o077
    if facts.st_mode & open_to:
        mode = stat.S_IMODE(facts.st_mode)
        raise KeyFileError(f"{path} is open to other users (mode {mode:04o}); run: chmod 600 {path}")
    if facts.st_uid not in (0, os.geteuid()):
        # what root takes over the service could not read any more
        remedy = (
            f"chown {os.geteuid()} {path}" if os.geteuid() else f"the command as sudo -u '#{facts.st_uid}'"
        )
        raise KeyFileError(f"{path} belongs to another user ({facts.st_uid}); run: {remedy}")


def is_credential(path: Path) -> bool:
    """Whether a file is one that the service manager handed over; such files are read-only."""
    folder = os.environ.get("CREDENTIALS_DIRECTORY")
    return folder is not None and path.parent == Path(folder)


def keep_out_of_dumps() -> None:
    """Have this process leave no core file, and let no other process of its user read its memory.

    Every process that holds keys or pixels calls it: the limit is inherited, the other is not.
    """
    with contextlib.suppress(
        OSError, ValueError
    ):  # a sandbox may forbid it; systemd's LimitCORE= has it done
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # core files that a program takes through a pipe ignore the limit (core(5)); this they do not
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
    if not is_out_of_dumps():
        log.event(_LOG, "memory-not-private", level=logging.WARNING)


def is_out_of_dumps() -> bool:
    """Whether `keep_out_of_dumps` holds in this process."""
    dumpable = sys.platform == "linux" and ctypes.CDLL(None).prctl(_PR_GET_DUMPABLE, 0, 0, 0, 0)
    return resource.getrlimit(resource.RLIMIT_CORE)[0] == 0 and not dumpable
