"""What a command line names: files, folders, media, archives, standard input."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from dicom_node import sources
from dicom_node.errors import InputError
from dicom_node.item import Item
from dicom_node.report import Note, Unreadable
from dicom_node.sources import Found, found
from tests import builders, media

INSTANCE = builders.file_bytes(builders.ct(16, 16))


def everything(*given: str | Path, content: bytes = b"", room: Path = Path("room")) -> list[Found]:
    return list(found([str(each) for each in given], room, io.BytesIO(content)))


def paths(given: list[Found]) -> list[Path | None]:
    return [each.path for each in given if isinstance(each, Item)]


def notes(given: list[Found], folder: Path) -> list[tuple[str, str]]:
    return [(n.kind, n.source.removeprefix(f"{folder}/")) for n in given if isinstance(n, Note)]


def touch(folder: Path, *names: str, content: bytes = b"x") -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


def test_folders_are_walked_in_name_order_without_hidden_files(tmp_path: Path) -> None:
    touch(tmp_path, "b", "a/2", "a/1", ".hidden", ".folder/x", "a.x")
    assert paths(everything(tmp_path)) == [tmp_path / name for name in ("a/1", "a/2", "a.x", "b")]


def test_named_files_come_as_named_even_if_absent(tmp_path: Path) -> None:
    touch(tmp_path, ".hidden")
    named = [tmp_path / "nowhere", tmp_path / ".hidden"]
    assert paths(everything(*named)) == named


def test_a_walk_reads_one_folder_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path, "a/1", "b/1", "c/1")
    seen: list[str] = []
    real = os.scandir

    def scandir(path: Path) -> Iterator[os.DirEntry[str]]:
        seen.append(Path(path).name)
        return real(path)  # type: ignore[return-value]

    monkeypatch.setattr(os, "scandir", scandir)
    next(iter(found([str(tmp_path)], tmp_path, io.BytesIO())))
    assert seen == [tmp_path.name, "a"]


def test_a_folder_that_cannot_be_listed_is_given_as_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    touch(tmp_path, "open/a", "shut/b")
    real = os.scandir

    def scandir(path: Path) -> object:
        if Path(path).name == "shut":
            raise PermissionError
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    assert paths(everything(tmp_path)) == [tmp_path / "open/a", tmp_path / "shut"]


def test_a_folder_without_files_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no file"):
        everything(tmp_path)


def test_links_to_folders_are_told_and_not_followed(tmp_path: Path) -> None:
    touch(tmp_path, "a/1")
    (tmp_path / "loop").symlink_to(tmp_path)
    given = everything(tmp_path)
    assert (paths(given), notes(given, tmp_path)) == ([tmp_path / "a/1"], [("skipped", "loop")])


@pytest.mark.parametrize("indexed", [False, True])
def test_a_link_to_itself_holds_nothing_up(tmp_path: Path, indexed: bool) -> None:
    """Whoever reads it says what is wrong with it; the files behind it are not held up."""
    touch(tmp_path, "z")
    if indexed:
        touch(tmp_path, "DICOMDIR", content=media.dicomdir(["Z"]))
    (tmp_path / "loop").symlink_to("loop")
    assert paths(everything(tmp_path)) == [tmp_path / "loop", tmp_path / "z"]


def test_folders_within_folders_end_somewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "_DEEPEST", 2)
    touch(tmp_path, "a/b/1", "a/b/c/2")
    given = everything(tmp_path)
    assert paths(given) == [tmp_path / "a/b/1"]
    assert [each.source for each in given if isinstance(each, Unreadable)] == [str(tmp_path / "a/b/c")]


def test_an_archive_is_entered_wherever_it_is(tmp_path: Path) -> None:
    media.archive(tmp_path / "x.zip", {"1": INSTANCE})
    for given in (everything(tmp_path / "x.zip"), everything(tmp_path)):
        assert [each.source for each in given] == [f"{tmp_path / 'x.zip'}!1"]


class TestStandardInput:
    def test_is_one_instance(self, tmp_path: Path) -> None:
        (item,) = everything("-", content=INSTANCE, room=tmp_path)
        assert isinstance(item, Item)
        assert (item.source, item.data) == ("standard input", INSTANCE)

    def test_large_ones_wait_on_disk(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("dicom_node.zips.IN_MEMORY_BYTES", 2000)
        (item,) = everything("-", content=INSTANCE * 9, room=tmp_path)
        assert isinstance(item, Item)
        assert item.path is not None
        assert item.path.read_bytes() == INSTANCE * 9

    @pytest.mark.parametrize("content", [b"", b"x" * 5000, media.zipped({"1": INSTANCE}), media.dicomdir([])])
    def test_nothing_else_is_waited_for(self, content: bytes, tmp_path: Path) -> None:
        stream = io.BytesIO(content)
        (told,) = found(["-"], tmp_path, stream)
        assert isinstance(told, Unreadable)
        assert "standard input takes one" in told.error
        assert stream.tell() <= 1024


class TestMedia:
    def test_a_folder_is_held_against_its_index(self, tmp_path: Path) -> None:
        touch(tmp_path, "A/1", "A/extra", "Z", ".H", content=INSTANCE)
        touch(tmp_path, "DICOMDIR", content=media.dicomdir(["A\\1", "A\\2", "z", ".H"]))
        given = everything(tmp_path)
        assert paths(given) == [tmp_path / name for name in ("A/1", "A/extra", "Z", ".H")]
        assert notes(given, tmp_path) == [("unlisted", "A/extra"), ("missing", "A/2"), ("index", "DICOMDIR")]

    def test_an_index_by_itself_names_what_it_lists(self, tmp_path: Path) -> None:
        touch(tmp_path, "A/1", "extra", content=INSTANCE)
        touch(tmp_path, "DICOMDIR", content=media.dicomdir(["A\\1", "A\\2"]))
        given = everything(tmp_path / "DICOMDIR")
        assert paths(given) == [tmp_path / "A/1"]
        assert notes(given, tmp_path) == [("unlisted", "extra"), ("missing", "A/2"), ("index", "DICOMDIR")]

    def test_nothing_outside_of_its_folder_is_read(self, tmp_path: Path) -> None:
        disc = tmp_path / "disc"
        touch(tmp_path, "secret", "disc/ok", content=INSTANCE)
        (disc / "link").symlink_to(tmp_path / "secret")
        (disc / "inner").symlink_to(disc / "ok")
        (disc / ".l").symlink_to(tmp_path / "secret")
        (disc / "up").symlink_to(tmp_path)
        names = [
            "..\\secret",
            f"{tmp_path}/secret",
            "A\0B",
            "link",
            ".l",
            "inner",
            "ok",
            "up\\secret",
            "N" * 300,
        ]
        touch(disc, "DICOMDIR", content=media.dicomdir(names))
        for given in (everything(disc), everything(disc / "DICOMDIR")):
            assert paths(given) == [disc / "inner", disc / "ok"]
            kinds = [kind for kind, _ in notes(given, disc)]
            assert sorted(kinds) == sorted(["refused", "skipped", *["missing"] * 4, "refused", "index"])

    def test_a_broken_index_is_told_and_the_folder_judged_all_the_same(self, tmp_path: Path) -> None:
        touch(tmp_path, "A", content=INSTANCE)
        touch(tmp_path, "DICOMDIR", content=media.dicomdir(["A"])[:-8])
        given = everything(tmp_path)
        assert paths(given) == [tmp_path / "A"]
        assert [type(each) for each in given] == [Unreadable, Item]
        assert [type(each) for each in everything(tmp_path / "DICOMDIR")] == [Unreadable]

    def test_an_index_without_end_is_not_read(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(sources, "LARGEST_INDEX_BYTES", 100)
        touch(tmp_path, "DICOMDIR", content=media.dicomdir(["A"]))
        (told,) = everything(tmp_path / "DICOMDIR")
        assert isinstance(told, Unreadable)
        assert "too large" in told.error

    def test_an_index_under_another_name_is_skipped_and_a_file_of_its_name_is_none(
        self, tmp_path: Path
    ) -> None:
        touch(tmp_path, "other", content=media.dicomdir([]))
        touch(tmp_path, "DICOMDIR", content=INSTANCE)
        given = everything(tmp_path)
        assert (paths(given), notes(given, tmp_path)) == ([tmp_path / "DICOMDIR"], [("skipped", "other")])
