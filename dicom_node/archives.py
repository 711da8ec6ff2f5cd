"""Archives as the commands see them: found from the top down, fetched in the background, given one by one.

Rules that bind here:
1. The caller takes one object after the other; no more than a few wait on disk for it.
2. Everything that was found is accounted for: it is here, or it is told as missing with the reason.
3. What is missing after a request is asked for once more, by name.
"""

from __future__ import annotations

import hashlib
import threading
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from dicom_node.config import Query, QueryPeer, RetrieveLevel, Tls
from dicom_node.dimse.contexts import is_uid
from dicom_node.dimse.retrieve import DimseArchive
from dicom_node.errors import PeerError
from dicom_node.inquiry import UNIQUE, Inquiry, Keys, Level, Order, Row, Told
from dicom_node.landing import Landed, Landing
from dicom_node.web import WebArchive

#: objects that wait for the caller at once; one more is let in when none was taken for a while, so that the
#: archive does not take us for dead
_WAITING = 64
_LET_IN_S = 5.0
#: requests in a row that an archive does not answer at all before the rest is not asked for
_GIVE_UP = 3
#: rows of one answer that are taken; whoever gives more has no end, or is to be asked for less
_MOST_ROWS = 1 << 20
#: seconds that a request under way has to notice that its connection was closed
_JOIN_S = 10.0
_LISTED_TWICE = "the archive lists this UID in two places; which of the two objects is meant, nobody can tell"
_NO_TLS = Tls()
#: something is there that cannot be fetched
NO_UID = "it gave rows without a usable UID, which were left out"
_TWICE = "it lists a study or series under two entries with one UID; what is in it was taken once"
_WARNED = "it reported warnings about some of what it sent"
_NOT_ASKED = "it gave rows that do not match the UID asked for, which were left out"


class Source(Protocol):
    """An archive that can be asked; `notes` holds what it did that is worth telling."""

    name: str
    notes: list[str]

    def find(self, level: Level, keys: Keys, wanted: tuple[str, ...], limit: int | None) -> Iterator[Row]:
        """Matches at one level, at most `limit`; to be taken to the end before the next question.

        Raises PeerError.
        """

    def fetch(self, order: Order, landing: Landing) -> Told:
        """Have the instances of an order come to `landing`; from any number of threads at once.

        Raises PeerError when the archive is gone, or refuses all of it.
        """

    def close(self) -> None:
        """End every connection, under whatever goes on; from any thread."""


@dataclass(frozen=True, slots=True)
class Missed:
    """An instance that was found and did not come."""

    study: str
    series: str
    uid: str
    why: str


def opened(name: str, peer: QueryPeer, query: Query, tls: Tls = _NO_TLS) -> Source:
    """The archive of this name; nothing is connected yet. Raises InputError for unusable credentials."""
    return DimseArchive(name, peer, query, tls) if peer.dicomweb is None else WebArchive(name, peer)


def found(source: Source, inquiry: Inquiry, limit: int | None = None) -> Iterator[Row]:
    """The matches of an inquiry, level by level from the top; at most `limit`. Raises PeerError."""
    left = limit
    for row in _below(source, inquiry, inquiry.steps(), None, limit):
        yield row
        if left is not None:
            left -= 1
            if not left:
                return


def _below(
    source: Source, inquiry: Inquiry, steps: Sequence[Level], above: Row | None, limit: int | None
) -> Iterator[Row]:
    level, rest = steps[0], steps[1:]
    keys = inquiry.matched_at(level)
    if above is not None:
        fixed = (UNIQUE[each] for each in (Level.STUDY, Level.SERIES))
        keys |= {key: above.get(key) for key in fixed if above.get(key)}
    rows = list(_usable(source, level, keys, inquiry.wanted_at(level), None if rest else limit))
    gone_into: set[str] = set()
    for row in rows:
        whole = row if above is None else row.below(above)
        if not rest:
            yield whole
        elif row.unique in gone_into:  # of two patients, say; what is below is found under the UID alone
            _note(source, _TWICE)
        else:
            gone_into.add(row.unique)
            yield from _below(source, inquiry, rest, whole, limit)


def _usable(
    source: Source, level: Level, keys: Keys, wanted: tuple[str, ...], limit: int | None
) -> Iterator[Row]:
    """The rows that are what was asked for; a table may show the odd ones, nothing is fetched by them."""
    asked = {
        key: set(keys[key].split("\\")) for key in UNIQUE.values() if key.endswith("UID") and key in keys
    }
    for count, row in enumerate(source.find(level, keys, wanted, limit)):
        if count == _MOST_ROWS:
            said = f"archive {source.name} gives more than {_MOST_ROWS} rows at once; narrow the question"
            raise PeerError(said, retryable=False)
        if level is not Level.PATIENT and not is_uid(row.unique):
            _note(source, NO_UID)
        elif any(row.get(key) and row.get(key) not in uids for key, uids in asked.items()):
            _note(source, _NOT_ASKED)
        else:
            yield row


def _note(source: Source, text: str) -> None:
    if text not in source.notes:
        source.notes.append(text)


def orders(rows: Iterable[Row], level: RetrieveLevel) -> Iterator[Order]:
    """Rows at image level, in the order of their series, as requests of one level."""
    study = series = ""
    expected: dict[str, str] = {}
    for row in rows:
        where = row.get("StudyInstanceUID"), row.get("SeriesInstanceUID")
        same = where == (study, series) or (level is RetrieveLevel.STUDY and where[0] == study)
        if expected and not same:
            yield _order(level, study, series, expected)
            expected = {}
        study, series = where
        expected[row.unique] = row.get("SOPClassUID")
    if expected:
        yield _order(level, study, series, expected)


def _order(level: RetrieveLevel, study: str, series: str, expected: Keys) -> Order:
    return Order(Level(level), study, "" if level is RetrieveLevel.STUDY else series, expected)


class Collection:
    """Fetches orders in the background; iterate over it once for what comes of them.

    Parameters
    ----------
    source : where from; closed at the end
    folder : where to
    orders : what to fetch, taken as it is needed
    threads : requests under way at once
    durable : whether what came must survive a power cut
    """

    def __init__(
        self, source: Source, folder: Path, orders: Iterable[Order], threads: int, *, durable: bool
    ) -> None:
        self.landing = Landing(folder, self._put, durable=durable)
        #: instances that were ordered so far
        self.ordered = 0
        self._source = source
        self._orders = iter(orders)
        self._came: deque[Landed | Missed] = deque()
        self._errors: list[Exception] = []
        self._changed = threading.Condition()
        self._ordering = threading.Lock()
        self._stopped = False
        self._gone = 0
        #: what was ordered, as 16 bytes each
        self._seen: set[bytes] = set()
        self._at_work = threads
        self._threads = [
            threading.Thread(target=self._run, name=f"fetch-{number}", daemon=True)
            for number in range(threads)
        ]

    def __enter__(self) -> Collection:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        with self._changed:
            self._stopped = True
            self._changed.notify_all()
        self._source.close()
        for thread in self._threads:
            thread.join(_JOIN_S)

    def __iter__(self) -> Iterator[Landed | Missed]:
        """What came and what did not, as it becomes known; raises what ended it early."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._came or not self._running())
                if not self._came:
                    break
                next_one = self._came.popleft()
                self._changed.notify_all()
            yield next_one
        if self._errors:
            raise self._errors[0]

    def _running(self) -> bool:
        return not self._stopped and self._at_work > 0

    def _put(self, landed: Landed | Missed) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._stopped or len(self._came) < _WAITING, _LET_IN_S)
            self._came.append(landed)
            self._changed.notify_all()

    def _run(self) -> None:
        try:
            while (order := self._next()) is not None:
                self._fetch(order)
        except Exception as error:
            with self._changed:
                self._errors.append(error)
        finally:
            with self._changed:
                self._at_work -= 1
                self._changed.notify_all()

    def _next(self) -> Order | None:
        """The next order, without what was ordered before; that is told."""
        with self._ordering:
            order = None if self._stopped or self._errors else next(self._orders, None)
            if order is None:
                return None
            self.ordered += len(order.expected)
            fresh = [uid for uid in order.expected if not self._known(uid)]
        for uid in order.expected.keys() - set(fresh):
            self._put(Missed(order.study, order.series, uid, _LISTED_TWICE))
        return order if len(fresh) == len(order.expected) else order.of(fresh)

    def _known(self, uid: str) -> bool:
        digest = hashlib.sha256(uid.encode()).digest()[:16]
        known = digest in self._seen
        self._seen.add(digest)
        return known

    def _fetch(self, order: Order) -> None:
        """Have an order come, what is missing a second time, and tell what is missing then."""
        self.landing.expect(order)
        outcomes: list[Told | PeerError] = []
        for request in (order, None):
            left = self.landing.missing(order)
            if left and not self._stopped:
                outcomes.append(self._ask(request or order.of(left)))
        for uid in self.landing.missing(order):
            self._put(Missed(order.study, order.series, uid, _why(uid, outcomes)))
        self.landing.forget(order)

    def _ask(self, order: Order) -> Told | PeerError:
        """Make one request; what came of it. Raises PeerError if the archive is gone."""
        try:
            told = self._source.fetch(order, self.landing)
        except PeerError as error:
            self._gone = self._gone + 1 if error.status is None else 0
            if self._gone > _GIVE_UP:
                raise
            return error
        self._gone = 0
        if told.warning:
            _note(self._source, _WARNED)
        return told


def _why(uid: str, outcomes: Sequence[Told | PeerError]) -> str:
    """Why an instance is missing, by what the last request for it says."""
    last = outcomes[-1] if outcomes else None
    if isinstance(last, PeerError):
        return str(last)
    if last is not None and uid in last.failures:
        return f"the archive lists it among those that it could not send (status {last.status:04X})"
    if last is not None and last.failed:
        return f"the archive could not send it (status {last.status:04X})"
    return "the archive did not send it"
