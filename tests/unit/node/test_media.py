"""An index held against what is there."""

from __future__ import annotations

import io

import pytest

from dicom_node.media import FileId, Index, index_of, is_index_name, leads_out, unlisted
from tests import media


def kinds(index: Index) -> list[tuple[str, str]]:
    return [(note.kind, note.source) for note in index.conclusion()]


def test_what_is_listed_and_not_there_is_missing_and_what_is_there_and_not_listed_is_told() -> None:
    index = Index("DICOMDIR", (), [("A", "1"), ("A", "2")])
    assert list(unlisted([index], ("a", "1"), "a/1")) == []
    (note,) = unlisted([index], ("A", "3"), "A/3")
    assert (note.kind, note.source) == ("unlisted", "A/3")
    assert kinds(index) == [("missing", "A/2"), ("index", "DICOMDIR")]
    assert list(index.conclusion())[-1].text == "lists 2 files, 1 missing"


def test_an_index_speaks_of_its_own_folder_only() -> None:
    index = Index("x/DICOMDIR", ("x",), [("A",)])
    assert list(unlisted([index], ("A",), "A")) == []
    assert index.lists(("x", "A"))
    assert not index.lists(("A",))
    assert list(unlisted([index], ("x", "a"), "x/a")) == []
    assert not index.lists(("x", "A"))


@pytest.mark.parametrize(
    ("name", "out"),
    [
        (("A", "B"), False),
        (("..", "B"), True),
        (("A", ".."), True),
        (("", "etc", "passwd"), True),
        (("/etc/passwd",), True),
        (("A/../../B",), True),
        (("A\0",), True),
        ((".",), True),
        ((), True),
        (("...", "A.dcm"), False),
    ],
)
def test_a_name_may_not_lead_out_of_the_folder(name: FileId, out: bool) -> None:
    assert leads_out(name) is out


def test_names_that_lead_out_are_counted_and_asked_for_nowhere() -> None:
    index = index_of(io.BytesIO(media.dicomdir(["..\\x", "A"])), "DICOMDIR", ())
    assert index.missing() == (("A",),)
    assert kinds(index) == [("missing", "A"), ("refused", "DICOMDIR"), ("index", "DICOMDIR")]


def test_media_name_their_index_in_either_case() -> None:
    assert is_index_name("DICOMDIR")
    assert is_index_name("dicomdir")
    assert not is_index_name("DICOMDIR.dcm")
