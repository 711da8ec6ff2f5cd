"""The three verbs on good input: what is hidden is found, and what was changed is given back."""

from __future__ import annotations

import json
import os
import pty
import subprocess
from pathlib import Path

import jsonschema
import numpy as np
import pytest

from blessmark import pixels
from blessmark.segment import segmenter
from blessmark.types import Finding
from tests import builders
from tests.acceptance.conftest import COMMAND, Site, names, run, write
from tests.phantoms import fundus

_SCHEMA = Path(__file__).resolve().parents[2] / "docs" / "verify.schema.json"
_FINDINGS = tuple(Finding)


def samples(path: Path) -> list[bytes]:
    image = pixels.load(pixels.read(path))
    assert isinstance(image, pixels.Image)
    return [frame.samples.tobytes() for frame in image]


def documented(done: subprocess.CompletedProcess[str]) -> dict[str, dict[str, object]]:
    """What `verify --json` said, by file name, after checking it against the published schema."""
    document = json.loads(done.stdout)
    schema = json.loads(_SCHEMA.read_text("utf-8"))
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.Draft202012Validator(schema).validate(document)
    return {Path(entry["source"]).name: entry for entry in document["instances"]}


def test_protect_mirrors_the_folder_and_says_what_it_did(site: Site) -> None:
    assert site.said.returncode == 0, site.said.stderr
    assert names(site.marked) == {"ct", "below/cine.dcm", "report.dcm"}
    assert "protected        full tile/quarter" in site.said.stdout
    assert "3 of 3 frames" in site.said.stdout
    assert "passed           no-pixel-data" in site.said.stdout
    assert site.said.stdout.splitlines()[-1] == "2 protected, 1 skipped, 1 passed"
    assert site.said.stderr.startswith("skipped          an index of files (DICOMDIR)")


def test_what_is_no_image_is_copied_byte_for_byte(site: Site) -> None:
    assert (site.marked / "report.dcm").read_bytes() == (site.images / "report.dcm").read_bytes()


def test_what_is_deidentified_tells_nothing_by_its_name_either(site: Site, tmp_path: Path) -> None:
    named = write(tmp_path / "images" / "Person" / "Synthetic.dcm", pixels.read(site.images / "ct"))
    content = named.read_bytes()
    sent, back = tmp_path / "sent", tmp_path / "back"
    for _ in range(2):
        done = run("protect", tmp_path / "images", "--deidentify", "--out", sent, keys=site.keys)
        assert done.returncode == 0, done.stderr
    (path,) = sent.iterdir()
    assert path.name == f"{pixels.read(path).SOPInstanceUID}.dcm"
    assert b"Synthetic" not in path.read_bytes()
    assert run("recover", sent, "--out", back, keys=site.keys).returncode == 0
    assert (back / path.name).read_bytes()[-200_000:] == content[-200_000:]


def test_no_line_names_the_patient(site: Site) -> None:
    done = run("verify", site.marked, "--json", keys=site.keys)
    for said in (site.said.stdout, site.said.stderr, done.stdout, done.stderr):
        assert "Synthetic" not in said


def test_verify_finds_authentic_and_shows_the_record_only_on_request(site: Site) -> None:
    """One image judged authentic exits with 0 and fits the schema, with its record too."""
    done = run("verify", site.marked / "ct", site.marked / "below", "--json", "--show-record", keys=site.keys)
    assert done.returncode == 0, done.stderr
    said = documented(done)
    assert {entry["finding"] for entry in said.values()} == {"authentic"}
    assert said["ct"]["record"]["PatientName"] == "Synthetic^Person"  # type: ignore[index]
    assert [frame["frame"] for frame in said["cine.dcm"]["frames"]] == [1, 2, 3]  # type: ignore[attr-defined]


def test_verify_tells_every_finding_apart_and_exits_with_3(site: Site, tmp_path: Path) -> None:
    altered = pixels.read(site.marked / "ct")
    image = pixels.load(altered)
    assert isinstance(image, pixels.Image)
    planes = image.frame(1).samples.copy()
    planes[0, 120:128, 120:128] += 1
    pixels.store(altered, image, iter([planes]))
    write(tmp_path / "pixels.dcm", altered)
    renamed = pixels.read(site.marked / "ct")
    renamed.PatientID = "1111"
    write(tmp_path / "header.dcm", renamed)
    write(tmp_path / "never.dcm", builders.mr(256, 256))
    done = run("verify", tmp_path, "--json", keys=site.keys)
    said = documented(done)
    assert done.returncode == 3
    assert {name: entry["finding"] for name, entry in said.items()} == {
        "pixels.dcm": "pixels-altered",
        "header.dcm": "header-altered",
        "never.dcm": "unmarked",
    }
    assert said["pixels.dcm"]["frames"][0]["altered_tiles"] == [[1, 1]]  # type: ignore[index]
    assert said["header.dcm"]["frames"][0]["altered_fields"] == ["PatientID"]  # type: ignore[index]


def test_another_site_key_is_told_from_no_watermark(site: Site, tmp_path: Path) -> None:
    other = tmp_path / "ring"
    run("keys", "new", "--keys", other)
    done = run("recover", site.marked / "ct", "--out", tmp_path / "out", keys=other)
    assert done.returncode == 3
    assert done.stdout.startswith("wrong-key")
    assert names(tmp_path) == {"ring"}


def test_recover_gives_back_pixels_and_header(site: Site, tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = run("recover", site.marked, "--out", out, keys=site.keys)
    assert done.returncode == 3  # the report was never marked
    assert names(out) == {"ct", "below/cine.dcm"}
    for name in names(out):
        assert samples(out / name) == samples(site.images / name)
        assert samples(site.marked / name) != samples(site.images / name)
    assert pixels.read(out / "ct").to_json_dict() == pixels.read(site.images / "ct").to_json_dict()


def test_the_papers_carrier_is_an_option_and_readers_need_none(site: Site, tmp_path: Path) -> None:
    image = write(tmp_path / "in" / "us", builders.us(300, 420, frames=2, SequenceOfUltrasoundRegions=[]))
    marked, restored = tmp_path / "marked", tmp_path / "restored"
    options = ("--carrier", "dct", "--block", "8")
    done = run("protect", image.parent, "--out", marked, *options, keys=site.keys)
    assert done.returncode == 0, done.stderr
    assert "protected        full blocks/8" in done.stdout
    found = documented(run("verify", marked, "--json", keys=site.keys))["us"]
    assert found["finding"] == "authentic"
    assert [frame["restoration"] for frame in found["frames"]] == ["approximate", "approximate"]
    assert "restoration approximate (" in run("verify", marked, keys=site.keys).stdout
    back = run("recover", marked, "--out", restored, keys=site.keys)
    assert back.returncode == 0, back.stdout
    assert "approximately" in pixels.read(restored / "us").DerivationDescription
    assert samples(restored / "us") != samples(marked / "us")


def test_the_schema_lists_every_finding() -> None:
    schema = json.loads(_SCHEMA.read_text("utf-8"))
    assert tuple(schema["$defs"]["finding"]["enum"]) == _FINDINGS


@pytest.mark.parametrize("out_is_terminal", [False, True])
def test_a_bar_is_drawn_on_a_terminal_and_lines_go_where_they_belong(
    site: Site, tmp_path: Path, out_is_terminal: bool
) -> None:
    """With the report redirected to a file, every line is in the file and the bar on the terminal."""
    ours, theirs = pty.openpty()
    arguments = [COMMAND, "verify", site.marked / "ct", site.marked / "below", "--keys", site.keys]
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "200"}
    with (tmp_path / "report.txt").open("wb") as report:
        stdout = theirs if out_is_terminal else report
        with subprocess.Popen([*map(str, arguments)], stdout=stdout, stderr=theirs, env=environment) as child:
            os.close(theirs)
            screen = _drained(ours)
            assert child.wait(60) == 0
    assert "verifying" in screen
    written = (tmp_path / "report.txt").read_text()
    assert "2 authentic" in (screen if out_is_terminal else written)
    assert ("2 authentic" in screen) is out_is_terminal


def _drained(terminal: int) -> str:
    """Everything that is shown until the last writer has gone."""
    shown = b""
    try:
        while chunk := os.read(terminal, 4096):
            shown += chunk
    except OSError:  # Linux says EIO instead of end of file
        pass
    finally:
        os.close(terminal)
    return shown.decode("utf-8", "replace")


#: stands in the way of a framework, in every process of the command
_TRAP = """
from pathlib import Path
(Path(__file__).parent / "loaded").touch()
raise ImportError
"""


def test_a_photograph_goes_there_and_back_by_vessels_without_a_framework(site: Site, tmp_path: Path) -> None:
    """What draws the map follows from the image; nobody names it, and the command line stays on NumPy."""
    green = fundus((256, 320))
    planes = np.stack([np.minimum(green * 3 // 2, 255), green, green // 3])[None]
    original = write(tmp_path / "op.dcm", builders.dataset(planes, builders.COLOUR_8, Modality="OP"))
    marked = tmp_path / "marked.dcm"
    assert run("protect", original, "--out", marked, keys=site.keys).returncode == 0

    trap = tmp_path / "trap"
    for framework in ("tensorflow", "keras", "jax", "torch"):
        (trap / framework).mkdir(parents=True)
        (trap / framework / "__init__.py").write_text(_TRAP)
    command = [COMMAND, "verify", marked, "--json", "--keys", site.keys]
    environment = {**os.environ, "PYTHONPATH": str(trap)}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    (found,) = json.loads(done.stdout)["instances"]
    assert (done.returncode, found["finding"]) == (0, "authentic")
    assert list(trap.glob("*/loaded")) == []
    assert found["frames"][0]["segmenter"] == segmenter("vessels").id

    restored = tmp_path / "restored.dcm"
    assert run("recover", marked, "--out", restored, keys=site.keys).returncode == 0
    assert samples(restored) == samples(original)


def test_a_reader_without_the_weights_says_which_it_lacks(site: Site, tmp_path: Path) -> None:
    """An image whose label names other weights, and in which nothing can be read."""
    ds = pixels.read(site.marked / "ct")
    image = pixels.load(ds)
    assert isinstance(image, pixels.Image)
    rng = np.random.default_rng(0)
    pixels.store(ds, image, [rng.integers(-1000, 2000, frame.samples.shape, np.int32) for frame in image])
    (hint,) = (tag for tag in ds.keys() if tag.group == 0x0099 and tag.element & 0xFF == 0x05)  # noqa: SIM118
    ds[hint].value = "vessels/2-0123456789ab"
    done = run("verify", write(tmp_path / "other", ds), keys=site.keys)
    assert done.returncode == 3
    assert done.stdout.startswith(
        "unknown-segmenter marked by vessels/2-0123456789ab; this installation has "
    )
    assert segmenter("vessels").id in done.stdout
