"""Every image file through the node's two sentences: protect, write, read, review, recover, write, read.

`travel` is the walk of one file; the benchmark tabulates what became of each, a slow test judges it.
"""

from __future__ import annotations

import hashlib
import warnings
from collections import Counter
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path

from pydicom.dataset import Dataset

from benchmarks.images import RING, chosen, dicom_files
from benchmarks.results import Result, Table
from benchmarks.run import Run, spread
from blessmark import pixels
from blessmark.errors import WatermarkError
from blessmark.payload.record import FULL_FIELDS
from blessmark.pixels.layout import digest
from blessmark.pixels.syntax import NATIVE
from blessmark.segment import segmenter
from dicom_node import header
from dicom_node.config import Deidentify, Profile, Uids
from dicom_node.errors import NodeError
from dicom_node.protect import Protection, Site, protect, written
from dicom_node.review import Reader, recover, review

_ARRIVED_S = 1_790_000_000
_PIXEL_DATA = 0x7FE00010
#: what lossless storage of a lossy or converted source says truthfully and keeps (PS3.3 C.7.6.1.1.5)
_STORED_ANEW = frozenset({0x00280004, 0x00280006, 0x00282110, 0x00282112, 0x00282114})


@dataclass(frozen=True, slots=True)
class Journey:
    """What became of one file.

    `result`, `reason` as `Protection` has them, `error` as a command would print it. The rest is filled for
    instances that were changed: `finding` of the review, whether the recovered pixels hash to the original
    ones, the tags whose value bytes differ from the original header, whether the source is uncompressed, and
    whether the recovered data set is the original byte for byte, as its hash among the originals says too.
    """

    source: str
    modality: str = ""
    result: str = ""
    reason: str = ""
    steps: Counter[str] = field(default_factory=Counter)
    error: str = ""
    finding: str = ""
    pixels_equal: bool = False
    differing: tuple[str, ...] = ()
    native: bool = False
    identical: bool = False

    @property
    def complete(self) -> bool:
        """Whether a changed instance came back whole."""
        return self.finding == "authentic" and self.pixels_equal and not self.differing


def public_files() -> list[Path]:
    """The files that pydicom brings for its own tests, and those of pydicom-data where installed."""
    roots = []
    for package, below in (("pydicom", "data"), ("data_store", "")):
        spec = find_spec(package)
        if spec is not None and spec.origin is not None:
            roots.append(Path(spec.origin).parent / below)
    files = sorted(path for root in roots for path in root.rglob("*") if path.is_file())
    return [path for path in files if path.suffix not in {".py", ".pyc", ".json", ".txt", ".md"}]


def travel(path: Path) -> Journey:
    """Send one file the whole way; only errors that the engine and the node define are caught."""
    return _journey(path, _site())


def travel_derived(path: Path) -> Journey:
    """As `travel`, on a route that derives UIDs."""
    return _journey(path, replace(_site(), uids=Uids.DERIVE))


def travel_deidentified(path: Path) -> Journey:
    """As `travel`, on a route that de-identifies."""
    return _journey(path, replace(_site(), deidentify=Deidentify(profile=Profile.BASIC)))


def _journey(path: Path, site: Site) -> Journey:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pydicom's opinion of the files is not the subject
        try:
            return _travel(path, site)
        except (WatermarkError, NodeError) as error:
            return Journey(path.name, error=f"{type(error).__name__}: {error}")


def _travel(path: Path, site: Site) -> Journey:
    ds = pixels.read(path)
    modality = (header.value_bytes(ds, 0x00080060) or b"").decode("ascii", "replace").strip(" \0")
    image = pixels.load(ds)
    content, before, body = _content(image), _header(ds), digest(ds)
    native = str(ds.file_meta.TransferSyntaxUID) in NATIVE
    done = protect(ds, site, _ARRIVED_S)
    if not done.changed:
        changed = _differences(before, _header(ds))
        return Journey(path.name, modality, done.result, done.reason, differing=changed)
    marked = pixels.read(written(ds))
    finding = str(review(marked, path.name, _reader()).finding)
    back_again = recover(marked, path.name, _reader())
    back = pixels.read(written(marked))
    return Journey(
        path.name,
        modality,
        done.result,
        done.reason,
        _steps(done),
        "",
        finding,
        back_again.restored and _content(pixels.load(back)) == content,
        _differences(before, _header(back)),
        native,
        back_again.identical and digest(back) == body,
    )


def _site() -> Site:
    return Site("benchmark", RING, segmenter("anatomy"), FULL_FIELDS)


def _reader() -> Reader:
    return Reader(RING, (segmenter("anatomy"),))


def _content(image: pixels.Image | pixels.Passthrough) -> bytes:
    """The hash of the decoded samples; nothing of what is not decoded."""
    return _digest(image) if isinstance(image, pixels.Image) else b""


def _digest(image: pixels.Image) -> bytes:
    """SHA-256 of the decoded samples, in one order of bytes and axes."""
    found = hashlib.sha256(repr(image.words.shape).encode())
    for number in range(1, image.frames + 1):
        found.update(image.frame(number).samples.astype("<i4").tobytes())
    return found.digest()


def _header(ds: Dataset) -> dict[int, bytes | None]:
    """Value bytes of every element but the pixels and the retired group lengths."""
    tags = (int(tag) for tag in ds.keys())  # noqa: SIM118 - iterating a Dataset decodes it
    return {tag: header.value_bytes(ds, tag) for tag in tags if tag != _PIXEL_DATA and tag & 0xFFFF}


def _differences(before: dict[int, bytes | None], after: dict[int, bytes | None]) -> tuple[str, ...]:
    tags = {tag for tag in before.keys() | after.keys() if before.get(tag) != after.get(tag)}
    return tuple(f"{tag:08X}" for tag in sorted(tags - _STORED_ANEW))


def _steps(done: Protection) -> Counter[str]:
    """How many frames went which way."""
    receipts = [mark.receipt for mark in done.frames]
    return Counter(
        "header" if r is None else f"{r.tier.name.lower()} {r.framing} {r.lattice.name.lower()}"
        for r in receipts
    )


def measure(run: Run) -> Result:
    """Send every file of the image folder and of pydicom the whole way."""
    folder, public = (
        spread(travel, chosen(files, 12, run.seed) if run.quick else files)
        for files in (dicom_files(run.data), public_files())
    )
    journeys = [*folder, *public]
    tables = (_summary(folder, public), _outcomes(journeys), _incomplete(journeys), _errors(journeys))
    return Result("journeys", "Every image, there and back", _NOTES, tables, {"files": len(journeys)})


_NOTES = (
    "Every file of the image folder's `dicom/`, of pydicom and of pydicom-data, `on_unprotectable: header`.",
    "Back: the review of the written file says authentic, the recovered pixels hash to the decoded original, "
    "and every element has the value bytes it had; of uncompressed sources, the recovered data set is the "
    "original byte for byte. Losslessly stored pixels of a lossy source keep saying so, which is meant.",
)


def _summary(folder: list[Journey], public: list[Journey]) -> Table:
    """Files by what became of them; the weakest frame of an image names it."""
    counts = Counter(map(_fate, folder)), Counter(map(_fate, public))
    rows = tuple((fate, *(count[fate] for count in counts)) for fate in sorted(set().union(*counts)))
    total = ("all", len(folder), len(public))
    return Table("Files by outcome", ("outcome", "image folder", "pydicom"), (*rows, total))


def _fate(journey: Journey) -> str:
    if journey.error:
        return "refused with an error"
    if journey.result != "protected":
        return f"{journey.result}: {journey.reason}" if journey.reason else journey.result
    tiers = {step.split()[0] for step in journey.steps}
    return f"protected: {next(tier for tier in ('seal', 'core', 'full') if tier in tiers)}"


def _outcomes(journeys: list[Journey]) -> Table:
    kept = [journey for journey in journeys if not journey.error]
    groups = Counter((j.modality or "none", j.result, _way(j)) for j in kept)
    back = Counter((j.modality or "none", j.result, _way(j)) for j in kept if j.complete)
    rows = tuple(
        (*group, count, back[group] if group[1].startswith("protected") else None)
        for group, count in sorted(groups.items())
    )
    return Table("Outcomes", ("modality", "result", "way or reason", "files", "back"), rows)


def _way(journey: Journey) -> str:
    return journey.reason or ", ".join(sorted(journey.steps))


def _incomplete(journeys: list[Journey]) -> Table:
    rows = tuple(
        (j.source, j.finding, "yes" if j.pixels_equal else "no", " ".join(j.differing))
        for j in journeys
        if j.finding and not j.complete
    )
    return Table("Changed, but not wholly back", ("file", "finding", "pixels", "elements"), rows)


def _errors(journeys: list[Journey]) -> Table:
    rows = tuple((j.source, j.error.replace("|", "/")) for j in journeys if j.error)
    return Table("Refused with an error", ("file", "error"), rows)
