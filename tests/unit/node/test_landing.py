"""What an archive sends is here whole, under a name of ours, or not at all."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dicom_node import landing as module
from dicom_node.errors import InputError, OutputError, SpoolFull
from dicom_node.inquiry import Level, Order
from dicom_node.landing import MANIFEST, Landed, Landing, Manifest, name_of

ORDER = Order(Level.SERIES, "1", "1.2", {"1.2.3": "ct", "1.2.4": "ct"})


def put(landing: Landing, uid: str, content: bytes = b"bytes") -> None:
    room = landing.room(lambda _: uid, uid)
    room.check_room()
    writer = room.writer()
    try:
        writer.write(content)
        writer.keep()
    finally:
        writer.discard()


def test_an_object_gets_a_name_that_says_nothing(tmp_path: Path) -> None:
    came: list[Landed] = []
    landing = Landing(tmp_path / "out", came.append)
    landing.expect(ORDER)
    put(landing, "1.2.3")
    (landed,) = came
    assert landing.path(landed).read_bytes() == b"bytes"
    assert (landed.study, landed.series, landed.uid, landed.size) == ("1", "1.2", "1.2.3", 5)
    assert [path.name for path in landing.folder.iterdir()] == [name_of("1.2.3")]
    assert "1.2.3" not in name_of("1.2.3")
    assert landing.missing(ORDER) == ("1.2.4",)


def test_what_was_not_asked_for_is_not_kept(tmp_path: Path) -> None:
    landing = Landing(tmp_path)
    landing.expect(ORDER)
    landing.forget(ORDER)
    with pytest.raises(InputError, match="not asked for"):
        landing.room(lambda _: "1.2.3", "1.2.3").check_room()
    writer = landing.room(lambda _: "9.9").writer()
    with pytest.raises(InputError):
        writer.keep()
    writer.discard()
    assert landing.refused == {"not asked for": 2}
    assert list(tmp_path.iterdir()) == []


def test_the_same_again_is_one_and_other_content_is_refused(tmp_path: Path) -> None:
    came: list[Landed] = []
    landing = Landing(tmp_path, came.append)
    landing.expect(ORDER)
    put(landing, "1.2.3")
    put(landing, "1.2.3")
    with pytest.raises(InputError, match="different content"):
        put(landing, "1.2.3", b"other")
    assert len(came) == 1
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"bytes"]


def test_what_is_not_finished_leaves_nothing(tmp_path: Path) -> None:
    landing = Landing(tmp_path)
    landing.expect(ORDER)
    writer = landing.room(lambda _: "1.2.3", "1.2.3").writer()
    writer.write(b"half")
    assert not any(path.suffix == ".dcm" for path in tmp_path.iterdir())
    writer.discard()
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_told_before_the_first_byte(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    landing = Landing(tmp_path)
    landing.expect(ORDER)
    monkeypatch.setattr(module, "RESERVE_BYTES", 1 << 62)
    with pytest.raises(SpoolFull, match="run the same command again"):
        landing.room(lambda _: "1.2.3", "1.2.3").check_room()


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="choose another"):
        Landing(tmp_path / "file" / "out")


# the manifest


def landed(uid: str, folder: Path, content: bytes = b"bytes") -> Landed:
    import hashlib

    (folder / name_of(uid)).write_bytes(content)
    return Landed(name_of(uid), "1", "1.2", uid, "ct", len(content), hashlib.sha256(content).hexdigest())


def test_a_second_run_knows_what_is_there_whole(tmp_path: Path) -> None:
    first = Manifest(tmp_path)
    for uid in ("1", "2", "3"):
        first.add(landed(uid, tmp_path))
    first.close()
    (tmp_path / name_of("2")).unlink()
    (tmp_path / name_of("3")).write_bytes(b"byteZ")
    second = Manifest(tmp_path)
    assert [second.here(uid) for uid in ("1", "2", "3", "4")] == [True, False, False, False]
    second.close()


def test_a_torn_line_costs_its_own_object_only(tmp_path: Path) -> None:
    with_two = Manifest(tmp_path)
    with_two.add(landed("1", tmp_path))
    with_two.add(landed("2", tmp_path))
    with_two.close()
    path = tmp_path / MANIFEST
    path.write_text(path.read_text()[:-20])
    again = Manifest(tmp_path)
    assert (again.here("1"), again.here("2")) == (True, False)
    again.add(landed("2", tmp_path))
    again.close()
    lines = path.read_text().splitlines()
    assert json.loads(lines[-1])["uid"] == "2"
    last = Manifest(tmp_path)
    assert last.here("2")
    last.close()


def test_what_a_crash_left_half_way_goes_and_two_do_not_fetch_into_one_folder(tmp_path: Path) -> None:
    (tmp_path / ".dicom-node-1-1").write_bytes(b"half")
    first = Manifest(tmp_path)
    assert not (tmp_path / ".dicom-node-1-1").exists()
    with pytest.raises(OutputError, match="another command"):
        Manifest(tmp_path)
    first.close()
