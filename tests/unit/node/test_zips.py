"""Members of archives: streamed, bounded, and never a name that is followed."""

from __future__ import annotations

import errno
import struct
import zipfile
from pathlib import Path

import pytest

from dicom_node import zips
from dicom_node.item import Item
from dicom_node.report import Note, Unreadable
from tests import builders, media

INSTANCE = builders.file_bytes(builders.ct(64, 64))


def members(path: Path, room: Path) -> list[Item | Note | Unreadable]:
    return list(zips.members(path, room))


def errors(found: list[Item | Note | Unreadable]) -> dict[str, str]:
    return {each.source.rpartition("!")[2]: each.error for each in found if isinstance(each, Unreadable)}


def test_members_are_items_and_everything_else_is_told(tmp_path: Path) -> None:
    path = media.archive(
        tmp_path / "a.zip",
        {
            "b/1.dcm": INSTANCE,
            "b/": b"",
            "c/": INSTANCE,
            "README.txt": b"burn two copies",
            "inner.zip": media.zipped({"x": INSTANCE}),
            ".hidden": INSTANCE,
            "__MACOSX/._1.dcm": b"resource",
        },
    )
    found = members(path, tmp_path)
    (item,) = (each for each in found if isinstance(each, Item))
    assert (item.source, item.path, item.data) == (f"{path}!b/1.dcm", None, INSTANCE)
    said = errors(found)
    assert set(said) == {"README.txt", "inner.zip", "c/"}
    assert "not a DICOM file" in said["README.txt"]
    assert "archive within an archive" in said["inner.zip"]


def test_no_name_is_followed(tmp_path: Path) -> None:
    room = tmp_path / "room"
    room.mkdir()
    names = ["../../x", "/etc/x", "a\\..\\..\\y", "\x1b[31mred"]
    path = media.archive(tmp_path / "a.zip", dict.fromkeys(names, INSTANCE))
    before = sorted(tmp_path.rglob("*"))
    items = [each for each in members(path, room) if isinstance(each, Item)]
    assert len(items) == len(names)
    assert sorted(tmp_path.rglob("*")) == before


def test_what_is_large_waits_on_disk_under_a_name_of_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(zips, "IN_MEMORY_BYTES", 4096)
    room = tmp_path / "room"
    room.mkdir()
    (item,) = members(media.archive(tmp_path / "a.zip", {"../x": INSTANCE}), room)
    assert isinstance(item, Item)
    assert item.temporary
    assert item.path is not None
    assert (item.path.parent, item.path.read_bytes()) == (room, INSTANCE)
    assert item.path.stat().st_mode & 0o077 == 0


class TestBombs:
    def test_what_is_no_dicom_is_not_inflated(self, tmp_path: Path) -> None:
        path = media.archive(tmp_path / "a.zip", {"zeros": bytes(60 << 20)})
        (found,) = members(path, tmp_path)
        assert isinstance(found, Unreadable)
        assert "not a DICOM file" in found.error

    def test_what_is_packed_more_densely_than_pixels_is_refused_by_what_it_declares(
        self, tmp_path: Path
    ) -> None:
        path = media.archive(tmp_path / "a.zip", {"bomb": INSTANCE + bytes(70 << 20)})
        (found,) = members(path, tmp_path)
        assert isinstance(found, Unreadable)
        assert "would inflate to" in found.error

    def test_a_member_gives_no_more_than_it_declares(self, tmp_path: Path) -> None:
        path = media.archive(tmp_path / "a.zip", {"liar": INSTANCE})
        content = bytearray(path.read_bytes())
        at = content.index(b"PK\1\2") + 24
        struct.pack_into("<I", content, at, len(INSTANCE) - 1000)
        path.write_bytes(content)
        (found,) = members(path, tmp_path)
        assert isinstance(found, Unreadable)
        assert "broken within its archive" in found.error

    def test_actual_size_is_bounded_too(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(zips, "IN_MEMORY_BYTES", 2048)
        monkeypatch.setattr(zips, "LARGEST_BYTES", 4096)
        room = tmp_path / "room"
        room.mkdir()
        with (tmp_path / "large").open("wb") as file:
            file.write(INSTANCE)
        with (tmp_path / "large").open("rb") as file, pytest.raises(zips.InputError, match="larger than"):
            zips.kept(file, file.read(1024), "x", room)
        assert list(room.iterdir()) == []

    def test_members_that_share_their_bytes_are_refused(self, tmp_path: Path) -> None:
        """The construction of the overlapping bomb: many entries that point at one kernel."""
        path = tmp_path / "a.zip"
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as target:
            target.writestr("a", INSTANCE)
            first = target.infolist()[0]
            for n in range(3):
                twin = zipfile.ZipInfo(f"b{n}")
                for name in ("compress_type", "compress_size", "file_size", "CRC", "header_offset"):
                    setattr(twin, name, getattr(first, name))
                target.filelist.append(twin)
        (found,) = members(path, tmp_path)
        assert isinstance(found, Unreadable)
        assert "made to do harm" in found.error


def test_want_of_room_is_no_fault_of_the_archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(zips, "IN_MEMORY_BYTES", 4096)
    monkeypatch.setattr(zips, "_copy", full)
    room = tmp_path / "room"
    room.mkdir()
    (found,) = members(media.archive(tmp_path / "a.zip", {"x": INSTANCE}), room)
    assert isinstance(found, Unreadable)
    assert "TMPDIR" in found.error
    assert list(room.iterdir()) == []


@pytest.mark.parametrize("cut", [30, -40, -1])
def test_a_broken_archive_is_one_error(tmp_path: Path, cut: int) -> None:
    path = media.archive(tmp_path / "a.zip", {"1": INSTANCE})
    path.write_bytes(path.read_bytes()[:cut])
    (found,) = members(path, tmp_path)
    assert isinstance(found, Unreadable)
    assert "broken" in found.error


def test_an_encrypted_member_is_told(tmp_path: Path) -> None:
    path = media.archive(tmp_path / "a.zip", {"1": INSTANCE})
    content = bytearray(path.read_bytes())
    for mark, offset in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        content[content.index(mark) + offset] |= 1
    path.write_bytes(content)
    assert "encrypted" in errors(members(path, tmp_path))["1"]


def test_an_index_in_an_archive_is_held_against_its_members(tmp_path: Path) -> None:
    index = media.dicomdir(["A\\1", "A\\2", ".H", "..\\..\\x"])
    path = media.archive(
        tmp_path / "a.zip",
        {"cd/a/1": INSTANCE, "cd/DICOMDIR": index, "cd/extra": INSTANCE, "else": INSTANCE, "cd/.h": INSTANCE},
    )
    found = members(path, tmp_path)
    assert len([each for each in found if isinstance(each, Item)]) == 4
    notes = [(each.kind, each.source.rpartition("!")[2]) for each in found if isinstance(each, Note)]
    assert notes == [
        ("unlisted", "cd/extra"),
        ("missing", "A/2"),
        ("refused", "cd/DICOMDIR"),
        ("index", "cd/DICOMDIR"),
    ]
