"""The status of a node as one page: what waits, what is wrong, what needs a decision. It changes nothing.

Nothing of a patient is shown: an object is named by its number, with which `dicom-node queue show` goes on,
and by the hash under which the log knows its UID. However much the ledger holds, the page asks for few rows.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from dicom_node import __version__, log
from dicom_node.blobs.port import BlobStore
from dicom_node.config import Config
from dicom_node.errors import NodeError
from dicom_node.ledger import Backlog, DeadLetter, Judged, Kept, Ledger
from dicom_node.pages.rendering import rendered
from dicom_node.pages.words import MEANINGS, Meaning
from dicom_node.standing import Standing, standing

#: rows of each list; more are a matter for `dicom-node queue list`
_ROWS = 20
#: a page serves everybody who asks within that time
_FRESH_S = 2.0
_REFRESH_S = 30
#: what a problem of `/readyz` means, and what to do
_PROBLEMS = {
    "receiver": "Nothing is received: the port is not listened on. Look into the log, then restart the node.",
    "workers": "No worker runs: what arrives is kept and not worked on. Look into the log.",
    "forwarder": "Nothing is sent: the sender has ended. Look into the log, then restart the node.",
    "committer": "No storage commitment is asked or answered. Look into the log, then restart the node.",
    "housekeeper": "Nothing is cleared away: the housekeeper has ended. Look into the log, then restart.",
    "leadership": "This machine cannot lead any more. Look into the log, then restart the node.",
    "models": "No worker has loaded its network yet, as in the first seconds after a start.",
    "spool": "The spool has no room: senders hear A700. Make room, or lower storage.reserve_mb.",
    "ledger": "The ledger cannot be read. Look into the log, and at the disk it lies on.",
}


@dataclass(frozen=True, slots=True)
class Facts:
    """What the page tells, read at `now`; times in seconds since 1970-01-01 UTC."""

    now: float
    problems: tuple[str, ...]
    free_bytes: int | None
    reserve_bytes: int
    arrived: int
    oldest_arrived_at: float | None
    kept: int
    destinations: tuple[tuple[Backlog, Standing], ...]
    held: tuple[Kept, ...]
    dead: tuple[DeadLetter, ...]
    judged: tuple[Judged, ...]


class StatusPage:
    """Makes the page when it is asked for, at most every two seconds.

    Parameters
    ----------
    config, ledger, spool : of the node
    problems : what keeps the node from doing its work, one word each
    """

    def __init__(
        self, config: Config, ledger: Ledger, spool: BlobStore, problems: Callable[[], Sequence[str]]
    ) -> None:
        self._config, self._ledger, self._spool, self._problems = config, ledger, spool, problems
        self._started_at = time.time()
        self._lock = threading.Lock()
        self._made_at = -_FRESH_S
        self._made = ""

    def __call__(self) -> str:
        """The page, as HTML. Raises LedgerError when the ledger cannot be read."""
        with self._lock:
            if time.monotonic() - self._made_at >= _FRESH_S:
                self._made = page(self._config, self._gathered(), self._started_at)
                self._made_at = time.monotonic()
            return self._made

    def _gathered(self) -> Facts:
        now, ledger = time.time(), self._ledger
        arrived, oldest = ledger.unprocessed()
        return Facts(
            now=now,
            problems=tuple(self._problems()),
            free_bytes=self._free_bytes(),
            reserve_bytes=self._config.storage.reserve_bytes,
            arrived=arrived,
            oldest_arrived_at=oldest,
            kept=ledger.kept(),
            destinations=tuple(_destinations(self._config, ledger, now)),
            held=tuple(ledger.held(_ROWS)),
            dead=tuple(ledger.dead_letters(limit=_ROWS)),
            judged=tuple(ledger.judged(_ROWS // 2)),
        )

    def _free_bytes(self) -> int | None:
        try:
            return self._spool.free_bytes()
        except NodeError:
            return None  # `problems` names the spool


def _destinations(config: Config, ledger: Ledger, now: float) -> list[tuple[Backlog, Standing]]:
    """Every destination that is configured, has anything before it, or is down or paused."""
    backlogs = {backlog.destination: backlog for backlog in ledger.backlogs()}
    paused, down = ledger.paused(), ledger.outages()
    busy = {name for name, has in backlogs.items() if has.waiting or has.sending or has.dead}
    names = sorted({*config.destinations, *busy, *paused, *down})
    return [
        (backlogs.get(name, Backlog(name, 0, 0, 0, None)), standing(config, name, paused, down, now))
        for name in names
    ]


@dataclass(frozen=True, slots=True)
class _Destination:
    """One line of the table of destinations."""

    name: str
    waiting: int
    sending: int
    dead: int
    oldest: str
    tone: str
    symbol: str
    said: str


@dataclass(frozen=True, slots=True)
class _Row:
    """One line of a list: a number to go on with, the hash of the UID, and what there is to say."""

    id: str
    uid: str
    cells: tuple[str, ...]
    meaning: Meaning | None = None


def page(config: Config, facts: Facts, started_at: float) -> str:
    """The page of those facts."""
    destinations = [_destination(*each, facts.now) for each in facts.destinations]
    verdict, tone = _verdict(facts, destinations)
    return rendered(
        "status.html.j2",
        node=config.node.id,
        ae_title=config.node.ae_title,
        version=__version__,
        refresh_s=_REFRESH_S,
        now=_moment(facts.now),
        running=span(facts.now - started_at),
        verdict=verdict,
        tone=tone,
        symbol={"good": "✓", "bad": "✗", "open": "!"}[tone],
        problems=[_PROBLEMS.get(word, word) for word in facts.problems],
        arrived=facts.arrived,
        oldest_arrived=_age(facts.oldest_arrived_at, facts.now),
        free=_size(facts.free_bytes),
        reserve=_size(facts.reserve_bytes),
        kept=facts.kept,
        destinations=destinations,
        held=[_held(kept, facts.now) for kept in facts.held],
        dead=[_dead(letter) for letter in facts.dead],
        dead_total=sum(each.dead for each in destinations),
        judged=[_judged(each, facts.now) for each in facts.judged],
    )


def _verdict(facts: Facts, destinations: Sequence[_Destination]) -> tuple[str, str]:
    """Whether all is well, in one sentence, and its tone."""
    if facts.problems:
        return "The node cannot do all of its work.", "bad"
    down = [each.name for each in destinations if each.tone == "bad"]
    if down:
        return f"The node works; it does not reach {' or '.join(down)}.", "bad"
    waits = [
        word for word, number in (("held", facts.kept), ("dead", sum(d.dead for d in destinations))) if number
    ]
    if waits:
        return "The node works; some objects wait for an operator's decision.", "open"
    return "The node works, and everything that arrived is on its way.", "good"


def _destination(backlog: Backlog, stands: Standing, now: float) -> _Destination:
    tone, symbol, said = _stands(stands, now)
    oldest = "" if backlog.oldest_at is None else span(now - backlog.oldest_at)
    return _Destination(
        backlog.destination, backlog.waiting, backlog.sending, backlog.dead, oldest, tone, symbol, said
    )


def _stands(stands: Standing, now: float) -> tuple[str, str, str]:
    """Tone, symbol and words, the worst first."""
    said = []
    if stands.down_since is not None:
        over = f", {stands.goes_to} takes its place" if stands.goes_to else ""
        said.append(("bad", "✗", f"down for {span(now - stands.down_since)}{over}"))
    if not stands.configured:
        said.append(("bad", "✗", "not in the configuration"))
    if stands.paused_since is not None:
        said.append(("open", "!", f"paused for {span(now - stands.paused_since)}"))
    if stands.closed_until is not None:
        said.append(("open", "!", f"closed until {_moment(stands.closed_until)}"))
    if not said:
        return "good", "✓", "open"
    return said[0][0], said[0][1], "; ".join(words for _, _, words in said)


def _held(kept: Kept, now: float) -> _Row:
    cells = (str(kept.state), kept.reason, kept.route, span(now - kept.received_at))
    return _Row(str(kept.id), log.uid_hash(kept.sop_instance_uid), cells)


def _dead(letter: DeadLetter) -> _Row:
    cells = (letter.destination, letter.reason, str(letter.attempts))
    return _Row(f"d{letter.id}", log.uid_hash(letter.sop_instance_uid), cells)


def _judged(judged: Judged, now: float) -> _Row:
    cells = (judged.route, f"{span(now - judged.received_at)} ago")
    return _Row(str(judged.id), log.uid_hash(judged.sop_instance_uid), cells, MEANINGS[judged.finding])


def _age(at: float | None, now: float) -> str:
    return "" if at is None else span(now - at)


def span(seconds: float) -> str:
    """A time span in one unit: `40 s`, `12 min`, `5 h`, `3 days`; what lies ahead counts as none."""
    seconds = max(0.0, seconds)
    for limit, size, unit in ((120, 1, "s"), (7200, 60, "min"), (172800, 3600, "h")):
        if seconds < limit:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds / 86400:.0f} days"


def _moment(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def _size(size: int | None) -> str:
    """Bytes in the unit that they are read in."""
    if size is None:
        return "unknown"
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.0f} MB"
