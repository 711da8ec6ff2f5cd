"""What becomes of acknowledged objects under faults, beside Orthanc in the same run.

Every scenario runs once for each node, one after the other, with the same objects, senders and archive. Both
forward everything to one archive, each as its makers intend: Orthanc by the auto-routing recipe of its book.
Nobody helps: nothing is resubmitted by hand, and the books are closed when nothing has arrived for a while.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

from benchmarks.results import Cell, Result, Table
from benchmarks.run import Run
from benchmarks.stand import ORTHANC, Node, Orthanc, Peer, Setup, free_port, objects, resize, small_disk
from benchmarks.witnesses import Account, Archive, Modality, account

_SENDERS = 4
_DISK_MEGABYTES = 48
#: nothing has arrived for so long: the books are closed, seconds
_QUIET_S, _QUICK_QUIET_S = 20.0, 8.0
_DOWN_S, _QUICK_DOWN_S = 30.0, 3.0
_LIMIT_S = 300.0

Subject = Node | Orthanc


@dataclass(slots=True)
class Stage:
    """One scenario under way: who is tested, who sends, who receives."""

    subject: Subject
    archive: Archive
    modalities: Sequence[Modality]
    down_s: float
    sent: int

    @property
    def acknowledged(self) -> dict[str, float]:
        """UID -> when, of everything that was answered with 0000."""
        return {uid: at for one in self.modalities for uid, at in one.acknowledged.items()}

    def send(self) -> None:
        """Start every sender."""
        for one in self.modalities:
            one.start()

    def until_sent(self) -> None:
        """Wait for every sender."""
        for one in self.modalities:
            one.join(_LIMIT_S)

    def restart(self) -> None:
        """Kill every process of the subject, and start it again."""
        self.subject.kill()
        self.subject.start()

    def until_progress(self, share: float) -> None:
        """Wait until this share of the objects is acknowledged."""
        deadline = time.monotonic() + _LIMIT_S
        while len(self.acknowledged) < share * self.sent and time.monotonic() < deadline:
            time.sleep(0.005)

    def until_quiet(self, quiet_s: float) -> None:
        """Wait until everything acknowledged has arrived, or nothing has for `quiet_s`."""
        arrived, since = -1, time.monotonic()
        while time.monotonic() - since < quiet_s:
            if len(self.archive.delivered) != arrived:
                arrived, since = len(self.archive.delivered), time.monotonic()
            if set(self.acknowledged) <= set(self.archive.digests()) and time.monotonic() - since > 2.0:
                return
            time.sleep(0.05)


def _no_fault(stage: Stage) -> None:
    stage.send()
    stage.until_sent()


def _killed(stage: Stage) -> None:
    stage.send()
    stage.until_progress(0.5)
    stage.restart()
    stage.until_sent()


def _away(stage: Stage) -> None:
    stage.archive.stop()
    stage.send()
    stage.until_sent()
    time.sleep(stage.down_s)
    stage.archive.start()


def _away_and_killed(stage: Stage) -> None:
    stage.archive.stop()
    stage.send()
    stage.until_sent()
    time.sleep(stage.down_s / 2)
    stage.restart()
    time.sleep(stage.down_s / 2)
    stage.archive.start()


def _full(stage: Stage) -> None:
    """The disk is too small for all of it; later the archive comes back, and later still there is room."""
    stage.archive.stop()
    stage.send()
    stage.until_sent()
    time.sleep(stage.down_s / 4)
    stage.archive.start()
    time.sleep(stage.down_s / 4)
    resize(stage.subject.state, megabytes=4 * _DISK_MEGABYTES)


#: scenario -> what happens in it, whether senders try again until they succeed, whether the disk is small
SCENARIOS: dict[str, tuple[Callable[[Stage], None], bool, bool]] = {
    "no fault": (_no_fault, True, False),
    "kill -9 under load, restarted": (_killed, True, False),
    "archive away for a while": (_away, True, False),
    "archive away, kill -9 meanwhile": (_away_and_killed, True, False),
    "disk full, archive away, then room": (_full, False, True),
}


def measure(run: Run) -> Result:
    """Every scenario for the node (role pass, role protect) and, where it is installed, for Orthanc."""
    count, large = (60, 120) if run.quick else (300, 400)
    rows: list[tuple[Cell, ...]] = []
    with tempfile.TemporaryDirectory(prefix="faults-") as name:
        folder = Path(name)
        small_ones = objects(folder / "small", count, edge=128, seed=run.seed)
        large_ones = objects(folder / "large", large, edge=256, seed=run.seed + 1)
        for scenario, (_, _, small) in SCENARIOS.items():
            for subject in _subjects():
                place = folder / f"{len(rows)}"
                books = _play(scenario, subject, place, large_ones if small else small_ones, run)
                rows.append((scenario, subject, *(_cells(books))))
                shutil.rmtree(place)
    columns = ("scenario", "node", "sent", "accepted", "once", "more", "never", "other content")
    down = _QUICK_DOWN_S if run.quick else _DOWN_S
    parameters = {"seed": run.seed, "senders": _SENDERS, "away_s": down, "orthanc": _orthanc_version()}
    return Result(
        "faults",
        "What becomes of acknowledged objects",
        _NOTES,
        (Table(_CAPTION, columns, tuple(rows)),),
        parameters,
    )


_CAPTION = "Acknowledged objects that arrived once, more than once, never"
_NOTES = (
    "Sent, accepted (answered with 0000), and of those accepted: arrived once, more than once, never. Other "
    "content: objects that arrived with more than one content.",
    "Four senders on bare sockets repeat an object until it is acknowledged, as a modality does; on the full "
    "disk each object is sent once. The archive is a bare socket, too, and keeps count of every arrival.",
    "Nothing is resubmitted by hand; the books are closed when nothing has arrived for "
    f"{_QUIET_S:.0f} s. Orthanc: auto-routing by `SendToModality` in `OnStoredInstance`, `SaveJobs`.",
    f"The full disk is a memory file system of {_DISK_MEGABYTES} MB; no figures where it cannot be mounted.",
)


def _subjects() -> tuple[str, ...]:
    ours = ("dicom-node pass", "dicom-node protect")
    return (*ours, "Orthanc") if Path(ORTHANC).exists() else ours


def _cells(books: Account | None) -> tuple[Cell, ...]:
    if books is None:
        return (None,) * 6
    return (books.sent, books.accepted, books.once, books.more, books.never, books.changed)


def _play(scenario: str, subject: str, folder: Path, paths: list[Path], run: Run) -> Account | None:
    """Run one scenario for one subject; None where its disk cannot be made."""
    play, persistent, small = SCENARIOS[scenario]
    archive = Archive(free_port()).start()
    made = _made(subject, folder, archive.port)
    down_s, quiet_s = (_QUICK_DOWN_S, _QUICK_QUIET_S) if run.quick else (_DOWN_S, _QUIET_S)
    with small_disk(made.state, megabytes=_DISK_MEGABYTES) if small else nullcontext(True) as able:
        if not able:
            return None
        modalities = [
            Modality(made.port, paths[number::_SENDERS], persistent=persistent) for number in range(_SENDERS)
        ]
        stage = Stage(made, archive, modalities, down_s, len(paths))
        try:
            made.start()
            play(stage)
            stage.until_quiet(quiet_s)
            return account(len(paths), stage.acknowledged, archive)
        finally:
            for one in modalities:
                one.giving_up.set()
            made.kill()
            archive.stop()


def _made(subject: str, folder: Path, port: int) -> Subject:
    if subject == "Orthanc":
        return Orthanc(folder, port)
    return Node(folder, Setup({"sink": Peer(port, associations=2, cap_s=5.0)}, subject.split()[1], workers=2))


def _orthanc_version() -> Cell:
    if not Path(ORTHANC).exists():
        return None
    said = subprocess.run([ORTHANC, "--version"], capture_output=True, text=True, check=False).stdout
    return said.split()[1] if len(said.split()) > 1 else "unknown"
