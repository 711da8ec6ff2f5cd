"""Node, Orthanc, node, Orthanc and storescp in a row: what was sent at one end, what arrived at the other.

for thing in corpus(folder): ...                the objects of a folder as they lie there
with chain(tmp_path, ...) as line:
    line.send(things)                           at the first Orthanc, or a reason why not
    line.forward()                              through the second node
    line.fates(things, line.at_dcmtk())         how each arrived
"""

from __future__ import annotations

import contextlib
import re
import shutil
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset
from pydicom.uid import UID

from benchmarks.stand import free_port
from blessmark import pixels
from blessmark.errors import PixelError
from blessmark.pixels.header import PIXEL_DESCRIPTION
from dicom_node.ledger import Ledger
from tests import assorted
from tests.integration.test_every_file_is_received import parted, said
from tests.interop import peers
from tests.wire import RELEASE, Wire, context, pdu

_PIXEL_DATA = 0x7FE00010
_DEFLATED, _MEDIA_DIRECTORY = "1.2.840.10008.1.2.1.99", "1.2.840.10008.1.3.10"
#: Orthanc says A700, "come again", of what it will never take
_RETRY = "first_s: 0.5, cap_s: 1.0, give_up_after: 2"
#: fates of what arrived
BYTES, VALUES = "byte for byte", "value for value"


#: UID -> data set and transfer syntax of what is at the end of the row
Arrived = Mapping[str, tuple[bytes, str]]


@dataclass(frozen=True)
class Thing:
    """An object of a file, with nothing changed but a UID that came before."""

    name: str
    sop_class: str
    uid: str
    syntax: str
    data_set: bytes = field(repr=False)

    def read(self) -> Dataset:
        return _read(self.data_set, self.syntax)


def corpus(folder: Path) -> list[Thing]:
    """Every instance below a folder that says what it is; of several under one UID each gets its own."""
    things: dict[str, Thing] = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        meta, data = parted(path.read_bytes())
        syntax = meta.get(0x10, "")
        found = said(data, syntax) if syntax else None
        if found is None or found[0] == _MEDIA_DIRECTORY:
            continue
        thing = Thing(path.name, *found, syntax, data)
        if thing.uid in things:
            renamed = _renamed(thing, len(things))
            if renamed is None:
                continue
            thing = renamed
        things[thing.uid] = thing
    return list(things.values())


def _renamed(thing: Thing, number: int) -> Thing | None:
    """The object under another UID of the same length, None where its bytes cannot be changed so."""
    fresh = thing.uid[:-4].rstrip(".") + f"{number + 1000}"
    fresh = re.sub(r"\.0+(\d)", r".\1", fresh).ljust(len(thing.uid), "1")[: len(thing.uid)]
    if thing.syntax == _DEFLATED or not UID(fresh).is_valid or len(thing.uid) < 16:
        return None
    return replace(thing, uid=fresh, data_set=thing.data_set.replace(thing.uid.encode(), fresh.encode()))


@dataclass(frozen=True)
class Line:
    """The row of peers."""

    sender: peers.RunningNode
    public: peers.Orthanc
    receiver: peers.RunningNode
    archive: peers.Orthanc
    dcmtk: peers.Storescp
    refused: dict[str, str] = field(default_factory=dict)

    def send(self, things: Sequence[Thing]) -> None:
        """Send to the first node, each on an association of its own, and wait until it is done with them."""
        for thing in things:
            with Wire(self.sender.port, timeout=60.0) as wire:
                wire.associate(context(1, thing.sop_class, thing.syntax))
                status = wire.store(thing.sop_class, thing.uid, thing.data_set, piece=100_000)
                wire.send(pdu(RELEASE, bytes(4)))
            if status:
                self.refused[thing.uid] = f"refused with {status:04X}"
        settled(self.sender)

    def forward(self, instances: Sequence[str] = ()) -> None:
        """Have the first Orthanc send what it holds to the second node, and wait until that is done."""
        wanted = list(instances) or self.public.instances()
        order = {"Resources": wanted, "Synchronous": False, "Permissive": True}
        job = self.public.post("/modalities/node/store", order)["ID"]
        peers.wait_until(
            lambda: self.public.get(f"/jobs/{job}")["State"] in ("Success", "Failure"),
            600,
            "Orthanc has sent",
        )
        settled(self.receiver)

    def send_to_receiver(self, content: bytes) -> None:
        """Have somebody send a file to the second node, and wait until that is done with it."""
        meta, data = parted(content)
        with Wire(self.receiver.port, timeout=60.0) as wire:
            wire.associate(context(1, meta[0x02], meta[0x10]))
            assert wire.store(meta[0x02], meta[0x03], data, piece=100_000) == 0x0000
            wire.send(pdu(RELEASE, bytes(4)))
        settled(self.receiver)

    def at_dcmtk(self) -> Arrived:
        """What storescp has, bit for bit as it came."""
        return _by_uid(path.read_bytes() for path in self.dcmtk.files())

    def at_archive(self) -> Arrived:
        """What the second Orthanc has."""
        return _by_uid(self.archive.file(instance) for instance in self.archive.instances())

    def fates(self, things: Sequence[Thing], arrived: Arrived) -> dict[str, str]:
        """UID -> how each thing arrived, or where and why it was left behind."""
        left = left_behind(self.receiver) | left_behind(self.sender) | self.refused
        return {
            thing.uid: compared(thing, *arrived[thing.uid])
            if thing.uid in arrived
            else left.get(thing.uid, "lost")
            for thing in things
        }


def _by_uid(files: Iterable[bytes]) -> Arrived:
    return {meta[0x03]: (data, meta[0x10]) for meta, data in map(parted, files)}


@contextlib.contextmanager
def chain(folder: Path, route: str, receiving: str = "") -> Iterator[Line]:
    """The row, its first node with the keys `route` on its route, its second with `receiving`."""
    port = free_port()
    keys = folder / "receiver" / "keyring"
    with (
        peers.storescp(folder / "dcmtk", "--promiscuous", "--bit-preserving") as dcmtk,
        peers.orthanc(folder / "archive") as archive,
        peers.orthanc(folder / "public", port) as public,
        peers.node(
            folder / "sender", {"public": ("ORTHANC", public.dicom_port)}, route=route, retry=_RETRY
        ) as sender,
    ):
        keys.parent.mkdir()
        shutil.copy2(sender.keys, keys)
        destinations = {"dcmtk": ("STORESCP", dcmtk.port), "archive": ("ORTHANC", archive.dicom_port)}
        with peers.node(folder / "receiver", destinations, "recover", port=port, route=receiving) as receiver:
            yield Line(sender, public, receiver, archive, dcmtk)


@contextlib.contextmanager
def ledger(node: peers.RunningNode) -> Iterator[Ledger]:
    """The ledger of a node, beside it."""
    book = Ledger(node.folder / "state" / "ledger.sqlite")
    try:
        yield book
    finally:
        book.close()


def settled(node: peers.RunningNode) -> None:
    """Wait until nothing waits in a node and nothing is under way."""
    with ledger(node) as book:
        peers.wait_until(lambda: book.counts().idle, 900, f"{node.folder.name} is done")


def left_behind(node: peers.RunningNode) -> dict[str, str]:
    """UID -> why an instance did not leave a node, or not everywhere; by the UID under which it arrived."""
    with ledger(node) as book:
        found = {}
        for letter in book.dead_letters():
            parcel = book.parcel(letter.id)
            item = None if parcel is None else book.item(parcel.instance_id)
            assert item is not None
            found[item.sop_instance_uid] = f"{letter.destination}: {letter.reason}"
        held = book.held()
    return found | {kept.sop_instance_uid: f"{node.folder.name} holds: {kept.reason}" for kept in held}


def compared(thing: Thing, data: bytes, syntax: str) -> str:
    """How far an object that arrived is the one that was sent, or in which elements it is not."""
    if syntax == thing.syntax and data == thing.data_set:
        return BYTES
    before, after = thing.read(), _read(data, syntax)
    with warnings.catch_warnings(action="ignore"):
        differing = sorted(_differing(before, after))
        if not differing and not _same_pixels(before, after):
            return "differs: pixels"
    return "differs: " + " ".join(f"{tag:08X}" for tag in differing) if differing else VALUES


def _differing(before: Dataset, after: Dataset) -> Iterator[int]:
    """Tags of what is another value, group lengths and the description of stored pixels apart."""
    for tag in {int(tag) for ds in (before, after) for tag in ds.keys()}:  # noqa: SIM118
        if tag == _PIXEL_DATA or tag & 0xFFFF == 0 or tag in PIXEL_DESCRIPTION:
            continue
        if (tag in before) != (tag in after) or not _same(before, after, tag):
            yield tag


def _same(before: Dataset, after: Dataset, tag: int) -> bool:
    one, other = (ds.get_item(tag) for ds in (before, after))
    if one.value == other.value and one.VR == other.VR:
        return True
    return _plain(before[tag].value) == _plain(after[tag].value)


def _plain(value: object) -> object:
    """A value without what says how it was written: padding, group lengths in items."""
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return [_plain(each) for each in value]
    if isinstance(value, Dataset):
        return {int(each.tag): _plain(each.value) for each in value if each.tag.element}
    return "" if value is None else str(value).strip(" \0")


def _same_pixels(before: Dataset, after: Dataset) -> bool:
    if _PIXEL_DATA not in before:
        return True
    try:
        images = pixels.load(before), pixels.load(after)
    except PixelError:
        return before.PixelData == after.PixelData
    one, other = images
    if isinstance(one, pixels.Image) and isinstance(other, pixels.Image):
        return all(np.array_equal(a.samples, b.samples) for a, b in zip(one, other, strict=True))
    return bool(before.PixelData == after.PixelData)


def _read(data: bytes, syntax: str) -> Dataset:
    return pixels.read(assorted.Thing("1.2.3", "1.2.3", syntax, data).part10())
