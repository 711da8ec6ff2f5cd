"""Segmenters: from an invariant view to a map of the region of interest.

Nothing heavy is imported until a segmenter is asked for by name.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING

from blessmark.errors import SegmenterError
from blessmark.types import Segmenter

if TYPE_CHECKING:
    from blessmark.segment.integer import RuntimeOf


def _anatomy(_on: RuntimeOf | None) -> Segmenter:
    from blessmark.segment.anatomy import Anatomy

    return Anatomy()


def _vessels(on: RuntimeOf | None) -> Segmenter:
    from blessmark.segment.integer import NumpyRuntime
    from blessmark.segment.vessels import packaged

    return packaged(on or NumpyRuntime)


def _whole(_on: RuntimeOf | None) -> Segmenter:
    from blessmark.segment.whole import Whole

    return Whole()


#: name/version -> how it is built on a runtime; a bare name means the last version listed
_BUILDERS: dict[str, Callable[[RuntimeOf | None], Segmenter]] = {
    "anatomy/1": _anatomy,
    "vessels/1": _vessels,
    "whole/1": _whole,
}


def known() -> tuple[str, ...]:
    """Name and version of all segmenters that this version can build."""
    return tuple(_BUILDERS)


def segmenter(name: str, on: RuntimeOf | None = None) -> Segmenter:
    """The segmenter of that name (`anatomy`: its newest version), or name and version (`anatomy/1`).

    `on` puts its network, if it has one, on a runtime; the NumPy reference unless told otherwise.

    Raises
    ------
    SegmenterError
        for a name that this version does not know; the message lists those it does
    """
    newest = {each.partition("/")[0]: each for each in _BUILDERS}
    versioned = newest.get(name, name)
    if versioned not in _BUILDERS:
        raise SegmenterError(f"no segmenter is called {name!r}; this version has {', '.join(known())}")
    return _build(versioned, on)


@cache
def _build(versioned: str, on: RuntimeOf | None) -> Segmenter:
    return _BUILDERS[versioned](on)
