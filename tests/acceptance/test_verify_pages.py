"""`verify --html DIR`: pages beside everything else that `verify` says."""

from __future__ import annotations

import json
from pathlib import Path

from tests import media
from tests.acceptance.conftest import Site, run


def test_lines_and_exit_code_are_as_ever_and_the_pages_are_there(site: Site, tmp_path: Path) -> None:
    out, plain = tmp_path / "out", run("verify", site.marked, keys=site.keys)
    done = run("verify", site.marked, "--html", out, keys=site.keys)
    assert (done.returncode, done.stdout) == (plain.returncode, plain.stdout)
    (said,) = [line for line in done.stderr.splitlines() if "open it in a browser" in line]
    opened = Path(said.partition(":")[0])
    assert opened.parent == out
    names = sorted(path.name for path in out.iterdir())
    assert opened.name in names
    assert all(name == "index.html" or name.startswith("study-") for name in names)
    page = "".join(path.read_text("utf-8") for path in out.iterdir())
    assert "data:image/webp;base64," in page
    assert "Synthetic^Person" not in page


def test_the_record_is_shown_on_request_only(site: Site, tmp_path: Path) -> None:
    done = run(
        "verify", site.marked / "ct", "--html", tmp_path / "out", "--json", "--show-record", keys=site.keys
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["findings"] == {"authentic": 1}
    page = (tmp_path / "out" / "study-1.html").read_text("utf-8")
    assert "Synthetic^Person" in page
    assert "No pixel and no field of the record was changed." in page


def test_what_comes_out_of_an_archive_has_its_pictures_too(site: Site, tmp_path: Path) -> None:
    members = {"../<b>1": (site.marked / "ct").read_bytes(), "notes.txt": b"burn two copies"}
    archive = media.archive(tmp_path / "cd.zip", members)
    done = run("verify", archive, "--html", tmp_path / "out", keys=site.keys)
    assert done.returncode == 1
    page = (tmp_path / "out" / "study-1.html").read_text("utf-8")
    assert "data:image/webp;base64," in page
    assert "<b>" not in page
    assert "notes.txt" in (tmp_path / "out" / "index.html").read_text("utf-8")


def test_a_folder_that_holds_something_is_left_alone(site: Site, tmp_path: Path) -> None:
    (tmp_path / "holiday.txt").write_text("x")
    done = run("verify", site.marked, "--html", tmp_path, keys=site.keys)
    assert (done.returncode, done.stdout) == (2, "")
    assert "is not empty; name a new folder" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["holiday.txt"]
