"""Which files a command reads, and that it writes them whole or not at all."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from dicom_node.cli import files
from dicom_node.cli.files import Pair
from dicom_node.errors import InputError, OutputError, UsageError


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")


def test_folders_are_walked_in_name_order_without_hidden_files(tmp_path: Path) -> None:
    touch(tmp_path, "b", "a/2", "a/1", ".hidden", ".folder/x")
    assert files.sources([tmp_path]) == [tmp_path / "a/1", tmp_path / "a/2", tmp_path / "b"]


def test_named_files_come_as_named_even_if_absent(tmp_path: Path) -> None:
    touch(tmp_path, ".hidden")
    named = [tmp_path / "nowhere", tmp_path / ".hidden"]
    assert files.sources(named) == named


def test_a_folder_that_cannot_be_listed_is_reported_as_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    touch(tmp_path, "open/a", "shut/b")
    real = os.scandir

    def scandir(path: str | Path) -> object:
        if Path(path).name == "shut":
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    assert files.sources([tmp_path]) == [tmp_path / "open/a", tmp_path / "shut"]


def test_a_folder_without_files_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no file"):
        files.sources([tmp_path])


def test_out_mirrors_in(tmp_path: Path) -> None:
    touch(tmp_path, "in/a", "in/b/c")
    source, out = tmp_path / "in", tmp_path / "out"
    assert files.pairs(source, out) == [Pair(source / "a", out / "a"), Pair(source / "b/c", out / "b/c")]


def test_a_file_goes_to_a_name_or_into_a_folder(tmp_path: Path) -> None:
    touch(tmp_path, "a", "out/x")
    assert files.pairs(tmp_path / "a", tmp_path / "b") == [Pair(tmp_path / "a", tmp_path / "b")]
    assert files.pairs(tmp_path / "a", tmp_path / "out") == [Pair(tmp_path / "a", tmp_path / "out/a")]


@pytest.mark.parametrize(
    ("source", "target", "words"),
    [
        ("in/a", "in/a", "same file"),
        ("in/a", "in", "same file"),
        ("in/a", "in/link", "same file"),
        ("in", "in", "lies inside"),
        ("in", "in/out", "lies inside"),
        ("in", ".", "lies inside"),
        ("in", "in/a", "must be one too"),
    ],
)
def test_no_file_may_overwrite_its_own_source(tmp_path: Path, source: str, target: str, words: str) -> None:
    touch(tmp_path, "in/a")
    (tmp_path / "in" / "link").symlink_to("a")
    with pytest.raises(UsageError, match=words):
        files.pairs(tmp_path / source, tmp_path / target)


def test_a_file_is_written_whole_with_the_usual_mode(tmp_path: Path) -> None:
    mask = os.umask(0o027)
    try:
        files.write_whole(tmp_path / "new" / "a", [b"one", b"two"])
    finally:
        os.umask(mask)
    assert (tmp_path / "new" / "a").read_bytes() == b"onetwo"
    assert (tmp_path / "new" / "a").stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize(
    ("failure", "raised"),
    [(OSError(errno.ENOSPC, "No space left"), OutputError), (KeyboardInterrupt(), None)],
)
def test_a_failed_write_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, failure: BaseException, raised: type[Exception] | None
) -> None:
    def chunks() -> Iterator[bytes]:
        yield b"half"
        raise failure

    (tmp_path / "a").write_bytes(b"old")
    with pytest.raises(raised or type(failure)) as caught:
        files.write_whole(tmp_path / "a", chunks())
    if raised:
        assert f"{tmp_path / 'a'} cannot be written (No space left)" in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    assert (tmp_path / "a").read_bytes() == b"old"


def test_without_a_terminal_there_is_no_bar(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(files.progress([1, 2, 3], "counting")) == [1, 2, 3]
    assert capsys.readouterr().err == ""
