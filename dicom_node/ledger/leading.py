"""Who of several nodes leads: the one whose session holds a lock of the database, which ends with it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import sqlalchemy as sa

from dicom_node.ledger.database import Database

#: the server notices within half a minute that the machine of a session is gone without a word
_PREPARE = "SET tcp_keepalives_idle = 10; SET tcp_keepalives_interval = 5; SET tcp_keepalives_count = 3"
_LOCK = "SELECT pg_try_advisory_lock(hashtextextended(%s, 1))"


class Leading(Database):
    """The lock of the leader."""

    @contextlib.contextmanager
    def lead(self, name: str) -> Iterator[Callable[[], bool] | None]:
        """Lead for the block, if nobody else does: None if somebody does, else whether it still holds.

        The lock is let go of at the end of the block, and by the server when this process or its machine is
        gone. The only node of a file always leads.
        """
        if not self._dialect.shared:
            yield lambda: True
            return
        with self._refusals():
            session: Any = self._engine.raw_connection()
        try:
            with self._refusals():
                held = _locks(session, name)
            yield (lambda: _lives(session)) if held else None
        finally:
            with contextlib.suppress(sa.exc.SQLAlchemyError, self._dialect.driver_error):
                session.invalidate()  # a session that went back to the pool would keep the lock


def _locks(session: Any, name: str) -> bool:
    with session.cursor() as cursor:
        cursor.execute(_PREPARE)
        return bool(cursor.execute(_LOCK, (f"lead:{name}",)).fetchone()[0])


def _lives(session: Any) -> bool:
    """Whether the session, and so the lock, is still there; an answer that takes too long is none."""
    try:
        with session.cursor() as cursor:
            cursor.execute("SELECT 1")
    except Exception:  # whatever it is, nothing says that the lock is held
        return False
    return True
