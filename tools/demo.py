"""`make demo`: the whole line on this machine, over real sockets, with real images.

    modality (this program) -> C-STORE -> dicom-node serve -> C-STORE -> PACS -> verify, recover

Then a study goes by another route of the same node, de-identified, to an archive outside; what arrives there
is searched for every name and number that was taken out, and re-identified with the key, byte for byte.

The PACS is DCMTK's storescp when it is there or apt can bring it, else pynetdicom's. Everything listens on
loopback at free ports, lives in one folder and is stopped by process id. Exit status 1 if anything is not as
it should be: an image that did not arrive, is not authentic, or is not given back bit for bit.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pydicom.data
from pydicom.dataset import Dataset
from pynetdicom import AE, _config, evt
from pynetdicom.presentation import build_context

from blessmark import pixels
from blessmark.errors import WatermarkError
from blessmark.segment import segmenter
from blessmark.types import Receipt
from dicom_node import __version__
from dicom_node.config import RECORD_FIELDS
from dicom_node.dimse import patches
from dicom_node.errors import NodeError
from dicom_node.keys import FileKeyRing
from dicom_node.protect import Site, protect

_DICOM_NODE = Path(sys.executable).with_name("dicom-node")
_STORESCP = Path("/usr/bin/storescp")
#: seconds without any progress after which the demonstration fails; a first run compiles for a while
_PATIENCE_S = 180.0

#: public test images of pydicom and pydicom-data, one of a kind each
_IMAGES = (
    "CT_small.dcm",
    "693_UNCR.dcm",
    "MR_small_RLE.dcm",
    "MR2_UNCR.dcm",
    "MR-SIEMENS-DICOM-WithOverlays.dcm",
    "emri_small_jpeg_ls_lossless.dcm",
    "RG3_UNCR.dcm",
    "examples_jpeg2k.dcm",
    "examples_rgb_color.dcm",
    "examples_ybr_color.dcm",
    "ExplVR_BigEnd.dcm",
    "JPEG2000.dcm",
    "image_dfl.dcm",
    "SC_rgb.dcm",
    "liver_1frame.dcm",
    "reportsi.dcm",
    "waveform_ecg.dcm",
)


#: the study that leaves the house
_STUDY = ("MR2_UNCI.dcm", "MR_small.dcm", "US1_UNCI.dcm", "test-SR.dcm", "reportsi.dcm")
#: what must not be found in it again: names, numbers, dates, institutions, physicians
_TELLING = (
    "PatientName",
    "PatientID",
    "PatientBirthDate",
    "StudyDate",
    "AccessionNumber",
    "InstitutionName",
    "ReferringPhysicianName",
    "SOPInstanceUID",
    "StudyInstanceUID",
)


class DemoError(Exception):
    """The demonstration cannot go on; the message says why."""


@dataclass(frozen=True, slots=True)
class Sample:
    """An instance to send: what it is, and what must come back."""

    path: Path
    uid: str
    sop_class: str
    syntax: str
    kind: str
    is_image: bool
    content: str  #: hash of the decoded pixels, or of the data set where there are none to mark
    receipts: tuple[Receipt, ...]  #: how this program protects it, for the capacity column


def main() -> int:
    """Run the demonstration; 0 when everything is as it should be."""
    args = _arguments()
    warnings.simplefilter("ignore")
    folder: Path = args.out.resolve()
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        wrong = demonstrate(folder, _files(args.data), args.pacs)
    except (DemoError, NodeError) as failure:
        print(f"\ndemo failed: {failure}\nlogs are in {args.out}", file=sys.stderr)
        return 1
    if wrong:
        print(f"\n{wrong} instances are not as they should be; everything is in {args.out}", file=sys.stderr)
        return 1
    print(f"\nEverything arrived authentic and came back bit for bit. Files and logs: {args.out}")
    return 0


def demonstrate(folder: Path, files: Sequence[Path], pacs: str) -> int:
    """Send `files` through a node to a PACS and back; how many instances are not as they should be."""
    print(f"dicom-node {__version__}: modality -> node -> PACS -> verify -> recover, on 127.0.0.1")
    keys = folder / "keyring"
    _run("keys", "new", "--keys", keys)
    started = time.monotonic()
    samples = _samples(files, keys)
    _note("read", f"{len(samples)} of {len(files)} files can be sent ({time.monotonic() - started:.1f} s)")
    with _pacs(folder, pacs) as (pacs_name, pacs_port):
        _note("PACS", f"{pacs_name}, port {pacs_port}")
        outside = folder / "outside"
        outside.mkdir()
        with (
            _pacs(outside, pacs) as (_, outside_port),
            _node(folder, keys, pacs_port, outside_port) as (node_port, http_port),
        ):
            started = time.monotonic()
            sent = _send(samples, node_port)
            _note("sent", f"{len(samples)} instances by C-STORE in {time.monotonic() - started:.1f} s")
            _await_delivery(http_port, len(samples))
            _note("delivered", f"all, {time.monotonic() - started:.1f} s after the first was sent")
            study = _samples(_study_files(), keys)
            _send(study, node_port, "OUTSIDE")
            _await_delivery(http_port, len(samples) + len(study))
            _note("outside", f"{len(study)} instances of a study, de-identified on another route")
    reports, restored = _read_back(folder, keys)
    print()
    times = _times(folder, sent)
    rows = [_row(sample, reports, restored, times) for sample in samples]
    _print_table(rows)
    wrong = sum(row[-1] != "bit for bit" for row in rows)
    wrong += _reidentified(outside, keys, study)
    return wrong + (not _tampering_is_found(folder, keys, samples))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make demo", description=__doc__)
    parser.add_argument(
        "data", nargs="*", type=Path, help="also send these files or folders (make demo DATA=)"
    )
    parser.add_argument("--out", type=Path, default=Path("demo-out"), help="where everything is kept")
    parser.add_argument(
        "--pacs", choices=("dcmtk", "pynetdicom"), default="dcmtk", help="dcmtk if it can be had"
    )
    return parser.parse_args()


def _note(what: str, text: str) -> None:
    print(f"  {what:<11}{text}", flush=True)


# what is sent


def _files(extra: Sequence[Path]) -> list[Path]:
    """The public images that this installation has, and every file below `extra`."""
    found = [path for name in _IMAGES if (path := _public_image(name)) is not None]
    for path in extra:
        if not path.exists():
            raise SystemExit(f"make demo: {path}: no such file or folder")
        found += sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
    return found


def _study_files() -> list[Path]:
    return [path for name in _STUDY if (path := _public_image(name)) is not None]


def _public_image(name: str) -> Path | None:
    path = pydicom.data.get_testdata_file(name, read=False, download=False)
    return None if path is None else Path(str(path))


def _samples(files: Sequence[Path], keys: Path) -> list[Sample]:
    """Those of `files` that can be sent; one of each SOP Instance UID, which is how the PACS knows them."""
    site = Site("demo", FileKeyRing.load(keys), segmenter("anatomy"), tuple(RECORD_FIELDS.values()))
    made: dict[str, Sample] = {}
    for path in files:
        try:
            sample = _sample(path, site)
        except (WatermarkError, NodeError, OSError) as error:
            _note("left out", f"{path.name}: {error}")
            continue
        made.setdefault(sample.uid, sample)
    return list(made.values())


def _sample(path: Path, site: Site) -> Sample:
    ds = pixels.read(path)
    facts = (str(ds.get("SOPInstanceUID", "")), str(ds.get("SOPClassUID", "")))
    if not all(facts):
        raise NodeError("has no SOP class or instance UID, so it cannot be sent")
    if str(ds.file_meta.MediaStorageSOPInstanceUID) != facts[0]:
        raise NodeError("its file header names another instance, so a node would refuse it (A900)")
    syntax, kind, content = str(ds.file_meta.TransferSyntaxUID), _kind(ds), _content(path)
    done = protect(ds, site, 0)
    receipts = tuple(mark.receipt for mark in done.frames if mark.receipt is not None)
    return Sample(path, *facts, syntax, kind, done.changed, content, receipts)


def _kind(ds: Dataset) -> str:
    """`CT 512x512, 12 bit`; the modality alone for what is never marked."""
    image = pixels.load(ds)
    if not isinstance(image, pixels.Image):
        return str(ds.get("Modality", "") or "-")
    size = f"{image.cols}x{image.rows}" + (f"x{image.frames}" if image.frames > 1 else "")
    colour = " colour" if image.channels > 1 else ""
    return f"{ds.get('Modality', '') or '-'} {size}, {image.header.bits_stored} bit{colour}"


def _content(path: Path) -> str:
    """The hash of the decoded frames, or, without any, of the data set as it stands in the file."""
    image = pixels.load(pixels.read(path))
    if not isinstance(image, pixels.Image):
        content = path.read_bytes()
        return hashlib.sha256(content[144 + int.from_bytes(content[140:144], "little") :]).hexdigest()
    digest = hashlib.sha256(repr((image.frames, image.channels, image.rows, image.cols)).encode())
    for frame in image:
        digest.update(frame.samples.tobytes())
    return digest.hexdigest()


# the programs


@contextlib.contextmanager
def _program(command: Sequence[str | Path], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A program with its output in `log`; stopped at the end, by force if it does not listen."""
    with log.open("wb") as output:
        # without TCP_NODELAY, DCMTK waits 40 ms for every acknowledgement
        environment = {**os.environ, "TCP_NODELAY": "1"}
        child = subprocess.Popen([*map(str, command)], stdout=output, stderr=output, env=environment)
        try:
            yield child
        finally:
            child.send_signal(signal.SIGTERM)
            try:
                child.wait(60)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()


@contextlib.contextmanager
def _pacs(folder: Path, wanted: str) -> Iterator[tuple[str, int]]:
    """A receiving PACS that keeps every object as a file; its name and port."""
    port, arrived = _free_port(), folder / "pacs"
    arrived.mkdir()
    if wanted == "dcmtk" and not _STORESCP.exists():
        subprocess.run(["sh", "tools/install_peers.sh", "dcmtk"], check=False)
    if wanted == "dcmtk" and _STORESCP.exists():
        name = "DCMTK storescp"
        command = [_STORESCP, "--fork", "+xa", "+B", "--output-directory", arrived, port]
    else:
        name = "pynetdicom storescp"
        command = [sys.executable, "-m", "pynetdicom", "storescp", port, "-od", arrived]
    with _program([str(part) for part in command], folder / "pacs.log") as child:
        _await(lambda: _listens(port), child, 60, f"the PACS does not listen; see {folder / 'pacs.log'}")
        yield name, port


@contextlib.contextmanager
def _node(folder: Path, keys: Path, pacs_port: int, outside_port: int) -> Iterator[tuple[int, int]]:
    """`dicom-node serve` in front of the PACS and of an archive outside; its DICOM and HTTP ports."""
    port, http_port = _free_port(), _free_port()
    config = folder / "dicom-node.yaml"
    config.write_text(
        f"""\
node: {{id: demo, ae_title: DEMONODE, bind: 127.0.0.1, port: {port}}}
storage: {{folder: state}}
keys: {{ring: {keys.name}}}
destinations:
  pacs: {{ae_title: PACS, host: 127.0.0.1, port: {pacs_port}}}
  outside: {{ae_title: OUTSIDE, host: 127.0.0.1, port: {outside_port}}}
routes:
  - {{name: research, match: {{called_ae: [OUTSIDE]}}, role: protect, destinations: [outside],
     deidentify: {{profile: basic}}}}
  - {{name: everything, role: protect, destinations: [pacs]}}
http: {{port: {http_port}}}
log: {{format: json, level: debug}}
"""
    )
    _run("config", "check", config)
    started = time.monotonic()
    with _program([_DICOM_NODE, "serve", "--config", config], folder / "node.log") as child:
        _await(lambda: _ready(http_port), child, 120, f"the node is not ready; see {folder / 'node.log'}")
        _note("node", f"dicom-node serve, port {port}, ready after {time.monotonic() - started:.1f} s")
        yield port, http_port
    if child.returncode != 0:
        raise DemoError(f"the node ended with status {child.returncode}; see {folder / 'node.log'}")


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def _listens(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 0.5):
        return True
    return False


def _ready(http_port: int) -> bool:
    with contextlib.suppress(OSError):
        return _get(http_port, "/readyz") == "ready\n"
    return False


def _get(http_port: int, path: str) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{http_port}{path}", timeout=10) as answer:
        return str(answer.read().decode())


def _await(condition: Any, child: subprocess.Popen[bytes], seconds: float, complaint: str) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        if child.poll() is not None or time.monotonic() > deadline:
            raise DemoError(complaint)
        time.sleep(0.05)


def _run(*arguments: str | Path, allowed: Sequence[int] = (0,)) -> str:
    """Run a command of dicom-node; its standard output."""
    command = [str(_DICOM_NODE), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode not in allowed:
        raise DemoError(f"dicom-node {' '.join(command[1:])}: {done.stdout}{done.stderr}")
    return done.stdout


# sending and waiting


def _send(samples: Sequence[Sample], port: int, called_ae: str = "DEMONODE") -> list[Sample]:
    """C-STORE every sample in its own transfer syntax; every answer must be success. In the order sent."""
    patches.apply()
    _config.STORE_SEND_CHUNKED_DATASET = True  # the bytes as they stand in the file
    modality = AE(ae_title="MODALITY")
    pairs = sorted({(sample.sop_class, sample.syntax) for sample in samples})
    sent: list[Sample] = []
    for batch in (pairs[at : at + 128] for at in range(0, len(pairs), 128)):
        contexts = [build_context(*pair) for pair in batch]
        association = modality.associate(
            "127.0.0.1",
            port,
            contexts=contexts,
            ae_title=called_ae,
            # the library's own loop now and then takes the answer that its sender waits for
            evt_handlers=[(evt.EVT_ESTABLISHED, lambda event: patches.install_gate(event.assoc))],
        )
        if not association.is_established:
            raise DemoError("the node refuses the association")
        for sample in samples:
            if (sample.sop_class, sample.syntax) in batch:
                _store(association, sample)
                sent.append(sample)
        association.release()
    return sent


def _store(association: Any, sample: Sample) -> None:
    answer = association.send_c_store(sample.path)
    status = answer.get("Status")
    if status != 0:
        said = "no answer" if status is None else f"status {status:04X}"
        raise DemoError(f"{sample.path.name}: the node answered C-STORE with {said}")


def _await_delivery(http_port: int, expected: int) -> None:
    """Until the node's metrics say that every instance was delivered; fail as soon as one will not be."""
    before, deadline = -1, time.monotonic() + _PATIENCE_S
    while before < expected:
        metrics = _get(http_port, "/metrics")
        stuck = sum(_tally(metrics, state) for state in ("held", "rejected", "quarantined", "dead"))
        if stuck:
            raise DemoError(f"the node could not protect or deliver {stuck} instances; see node.log")
        delivered = _tally(metrics, "delivered")
        if delivered > before:
            before, deadline = delivered, time.monotonic() + _PATIENCE_S
        if time.monotonic() > deadline:
            raise DemoError(f"{delivered} of {expected} instances delivered, and no progress any more")
        time.sleep(0.1)


def _tally(metrics: str, state: str) -> int:
    return int(sum(float(n) for n in re.findall(rf'^\S+{{.*state="{state}".*}} (\S+)$', metrics, re.M)))


# reading back


def _read_back(folder: Path, keys: Path) -> tuple[dict[str, dict[str, Any]], dict[str, str]]:
    """By SOP Instance UID: what verify says of what arrived, and the hash of what recover restored."""
    arrived, restored = folder / "pacs", folder / "restored"
    started = time.monotonic()
    said = json.loads(_run("verify", arrived, "--json", "--keys", keys, allowed=(0, 3)))
    _note("verify", f"{len(said['instances'])} files in {time.monotonic() - started:.1f} s")
    started = time.monotonic()
    _run("recover", arrived, "--out", restored, "--keys", keys, allowed=(0, 3))
    _note("recover", f"{len(list(restored.iterdir()))} files in {time.monotonic() - started:.1f} s")
    uids = {path.name: str(pixels.read(path).SOPInstanceUID) for path in arrived.iterdir()}
    reports = {uids[Path(entry["source"]).name]: entry for entry in said["instances"]}
    contents: dict[str, str] = {}
    for path in arrived.iterdir():
        # what was never marked arrives as it was, and recover has nothing to do with it
        source = restored / path.name
        contents[uids[path.name]] = _content(source if source.exists() else path)
    return reports, contents


def _reidentified(outside: Path, keys: Path, study: Sequence[Sample]) -> int:
    """Search what arrived outside, recover it with the key; how many instances are not as they should be."""
    arrived, back = outside / "pacs", outside / "back"
    _run("recover", arrived, "--out", back, "--keys", keys, allowed=(0, 3))
    restored = {str(ds.SOPInstanceUID): (ds, path) for path, ds in _instances(back)}
    names = {path.name: str(ds.PatientName) for path, ds in _instances(arrived)}
    rows, wrong = [], 0
    for sample in study:
        original = pixels.read(sample.path)
        found = restored.get(sample.uid)
        leaks = [word for word in _words(original) if any(word in p.read_bytes() for p in arrived.iterdir())]
        same = found is not None and _data_set(found[1]) == _data_set(sample.path)
        wrong += not same or bool(leaks)
        outcome = "byte for byte" if same else "DIFFERS"
        there = names.get(found[1].name, "") if found is not None else "did not arrive"
        rows.append((sample.path.name, there, f"{len(leaks)} found", outcome))
    print("De-identified (PS3.15 Basic Profile), as the archive outside has it, then re-identified:\n")
    _print_table(rows, ("sent", "patient there", "names, numbers, dates", "re-identified"), (False,) * 4)
    return wrong


def _instances(folder: Path) -> list[tuple[Path, Dataset]]:
    return [(path, pixels.read(path)) for path in sorted(folder.iterdir())] if folder.exists() else []


def _words(ds: Dataset) -> list[bytes]:
    """The values that must not be found: long enough to mean something, no name of the scanner's maker."""
    values = (str(ds.get(keyword) or "") for keyword in _TELLING)
    words = [word for value in values for word in re.split(r"[\^=]", value)]
    return [word.encode() for word in words if len(word) > 3 and word not in str(ds.get("Manufacturer"))]


def _data_set(path: Path) -> bytes:
    """The hash of a file's data set, file meta information apart."""
    content = path.read_bytes()
    return hashlib.sha256(content[144 + int.from_bytes(content[140:144], "little") :]).digest()


def _times(folder: Path, samples: Sequence[Sample]) -> dict[str, float]:
    """Seconds that a worker spent on each instance; the node's log names jobs in the order of arrival."""
    events = [json.loads(line) for line in (folder / "node.log").read_text().splitlines() if line[:1] == "{"]
    jobs = [event["job"] for event in events if event["event"] == "received"]
    spent = {event["job"]: event["total_s"] for event in events if event["event"] == "processed"}
    return {sample.uid: spent.get(job, 0.0) for sample, job in zip(samples, jobs, strict=False)}


def _tampering_is_found(folder: Path, keys: Path, samples: Sequence[Sample]) -> bool:
    """Copy a small patch of one arrived image to another place, and have verify say so."""
    victim = next((sample for sample in samples if sample.receipts), None)
    if victim is None:
        return True
    source = next(p for p in (folder / "pacs").iterdir() if str(pixels.read(p).SOPInstanceUID) == victim.uid)
    ds = pixels.read(source)
    image = pixels.load(ds)
    assert isinstance(image, pixels.Image)
    planes = [frame.samples.copy() for frame in image]
    row, col = image.rows // 2, image.cols // 2
    planes[0][:, row : row + 8, col : col + 8] = planes[0][:, row - 8 : row, col - 8 : col]
    pixels.store(ds, image, iter(planes))
    forged = folder / "tampered.dcm"
    with forged.open("wb") as file:
        pixels.write(ds, file)
    said = json.loads(_run("verify", forged, "--json", "--keys", keys, allowed=(3,)))["instances"][0]
    tiles = said["frames"][0]["altered_tiles"]
    _note("tampered", f"8x8 pixels of {victim.path.name} overwritten: {said['finding']}, tiles {tiles}")
    return bool(said["finding"] == "pixels-altered")


# the table

_HEADINGS = (
    "sent",
    "image",
    "at the PACS",
    "record travels",
    "PSNR dB",
    "bits of room",
    "node ms",
    "recovered",
)
_NUMERIC = (False, False, False, False, True, True, True, False)


def _row(
    sample: Sample, reports: dict[str, dict[str, Any]], restored: dict[str, str], times: dict[str, float]
) -> tuple[str, ...]:
    report = reports.get(sample.uid)
    took = f"{1000 * times.get(sample.uid, 0.0):.0f}"
    if report is None:
        return sample.path.name, sample.kind, "did not arrive", "", "", "", took, "no"
    same = restored.get(sample.uid) == sample.content
    expected = report["finding"] == ("authentic" if sample.is_image else "unmarked")
    verdict = report["finding"] if sample.is_image else f"passed on: {report['reason']}"
    outcome = "bit for bit" if same and expected else "DIFFERS"
    return sample.path.name, sample.kind, verdict, *_carried(sample, report), took, outcome


def _carried(sample: Sample, report: dict[str, Any]) -> tuple[str, str, str]:
    """Tier, framing and lattice of the first frame; the worst PSNR; bits of the record and the room."""
    if not report["frames"]:
        return "", "", ""
    first = report["frames"][0]
    levels = [frame["psnr_db"] for frame in report["frames"] if frame["psnr_db"] is not None]
    psnr = f"{min(levels):.1f}" if levels else "exact"
    room = next((f"{r.message_bits} of {r.capacity_bits}" for r in sample.receipts), "-")
    return " ".join(filter(None, (first["tier"], first["framing"], first["lattice"]))), psnr, room


def _print_table(
    rows: Sequence[tuple[str, ...]],
    headings: tuple[str, ...] = _HEADINGS,
    numeric: tuple[bool, ...] = _NUMERIC,
) -> None:
    widths = [max(len(row[n]) for row in (headings, *rows)) for n in range(len(headings))]
    for row in (headings, tuple("-" * width for width in widths), *rows):
        cells = zip(row, widths, numeric, strict=True)
        aligned = (cell.rjust(width) if right else cell.ljust(width) for cell, width, right in cells)
        print("  ".join(aligned).rstrip())
    print()


if __name__ == "__main__":
    sys.exit(main())
