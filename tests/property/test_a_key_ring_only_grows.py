"""Whatever is done to a key ring, at any time: no key is lost, and none that is revoked is written with."""

from __future__ import annotations

import contextlib
import tempfile
from pathlib import Path
from unittest import mock

from hypothesis import given, settings
from hypothesis import strategies as st

from dicom_node import keys
from dicom_node.errors import KeyFileError
from dicom_node.keys import FileKeyRing

YEARS = st.integers(2027, 2036)


def moment(year: int) -> str:
    return f"{year}-01-01T00:00:00Z"


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("new"), st.one_of(st.none(), YEARS)),
        st.tuples(st.just("revoke"), st.integers(1, 6)),
        st.tuples(st.just("wait"), YEARS),
        st.tuples(st.just("merge"), st.none()),
    ),
    max_size=12,
)


def do(step: tuple[str, int | None], ring: Path, other: Path) -> None:
    what, number = step
    if what == "new":
        keys.generate(ring, "" if number is None else moment(number))
    elif what == "revoke" and number is not None:
        keys.revoke(ring, number)
    elif what == "merge":
        keys.merge(other, keys.text_of(ring), "export")
        keys.merge(ring, keys.text_of(other), "export")


@settings(max_examples=60)
@given(STEPS)
def test_a_key_ring_only_grows(steps: list[tuple[str, int | None]]) -> None:
    year, known, revoked = 2027, {}, set()
    with tempfile.TemporaryDirectory() as name:
        ring, other = Path(name, "ring"), Path(name, "other")
        with mock.patch.object(keys, "now", side_effect=lambda: moment(year)):
            keys.generate(ring)
            for step in steps:
                if step[0] == "wait":
                    year = max(year, step[1] or 0)
                with contextlib.suppress(KeyFileError):
                    do(step, ring, other)
                for path in (ring, other):
                    if path.exists():
                        loaded = FileKeyRing.load(path)
                        assert loaded.current.id not in loaded.revoked
                now = FileKeyRing.load(ring)
                held = {key.id: key.secret for key in now.keys}
                assert known.items() <= held.items()
                assert revoked <= set(now.revoked)
                known, revoked = held, set(now.revoked)
