"""The structure walk accepts whatever is well formed, in any pieces; and survives whatever is not."""

from __future__ import annotations

import contextlib
import itertools

from hypothesis import given
from hypothesis import strategies as st
from pydicom.datadict import DicomDictionary

from dicom_node.dimse.structure import Found, StructureWalk
from dicom_node.errors import DataSetError
from tests.data_sets import BIG, DEFLATED, EXPLICIT, IMPLICIT, JPEG, Writer, deflated

CT, ONE = "1.2.840.10008.5.1.4.1.1.2", "1.2.3.4"
_VRS = ("CS", "UI", "US", "PN", "OB", "OW", "UN", "UT", "UV")


@st.composite
def elements(draw: st.DrawFn, writer: Writer, depth: int = 3) -> bytes:
    """Some elements of the outermost level or of an item, sequences with sequences inside."""
    return b"".join(draw(st.lists(_element(writer, depth), max_size=4)))


def _element(writer: Writer, depth: int) -> st.SearchStrategy[bytes]:
    tags = st.integers(0x00100000, 0x7FE00000)
    plain = st.builds(
        writer.element, tags.filter(_is_no_sequence), st.sampled_from(_VRS), st.binary(max_size=40)
    )
    pixels = st.builds(writer.fragments, st.just(0x7FE00010), st.lists(st.binary(max_size=20), max_size=3))
    if not depth:
        return plain | pixels
    items = st.lists(_item(writer, depth), max_size=3)
    # a standard sequence, so that implicit VR knows it too
    nested = st.booleans().flatmap(
        lambda delimited: items.map(lambda made: writer.sequence(0x00400275, made, delimited=delimited))
    )
    return plain | pixels | nested


def _is_no_sequence(tag: int) -> bool:
    return tag not in DicomDictionary


def _item(writer: Writer, depth: int) -> st.SearchStrategy[bytes]:
    content = elements(writer, depth - 1)
    return st.booleans().flatmap(
        lambda delimited: content.map(lambda made: writer.item(made, delimited=delimited))
    )


@st.composite
def data_sets(draw: st.DrawFn) -> tuple[str, bytes]:
    """A transfer syntax and a well-formed data set in it."""
    syntax = draw(st.sampled_from((IMPLICIT, EXPLICIT, BIG, DEFLATED, JPEG)))
    writer = Writer(syntax)
    data = writer.identity(CT, ONE) + draw(elements(writer))
    return syntax, deflated(data) if syntax == DEFLATED else data


def in_pieces(data: bytes, cuts: list[int], syntax: str) -> Found | str:
    walk = StructureWalk(syntax)
    edges = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    try:
        for start, end in itertools.pairwise(edges):
            walk.feed(data[start:end])
        return walk.close()
    except DataSetError as error:
        return error.reason


@given(data_sets(), st.lists(st.integers(0, 1 << 20), max_size=6))
def test_what_is_well_formed_is_accepted_in_any_pieces(made: tuple[str, bytes], cuts: list[int]) -> None:
    syntax, data = made
    assert in_pieces(data, cuts, syntax) == Found(CT, ONE)


@given(data_sets(), st.data())
def test_one_that_is_cut_or_changed_gets_one_verdict_in_any_pieces(
    made: tuple[str, bytes], draws: st.DataObject
) -> None:
    syntax, data = made
    changed = bytearray(data[: draws.draw(st.integers(1, len(data)))])
    for _ in range(draws.draw(st.integers(0, 3))):
        changed[draws.draw(st.integers(0, len(changed) - 1))] = draws.draw(st.integers(0, 255))
    cuts = draws.draw(st.lists(st.integers(0, 1 << 20), max_size=6))
    assert in_pieces(bytes(changed), cuts, syntax) == in_pieces(bytes(changed), [], syntax)


@given(st.binary(max_size=300), st.sampled_from((IMPLICIT, EXPLICIT, BIG, DEFLATED)))
def test_garbage_is_judged_and_nothing_else_happens(data: bytes, syntax: str) -> None:
    with contextlib.suppress(DataSetError):
        walk = StructureWalk(syntax)
        walk.feed(data)
        walk.close()
