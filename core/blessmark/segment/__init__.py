"""Segmenters: from an invariant view to a map of the region of interest.

Nothing heavy is imported until a segmenter is asked for by name.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

from blessmark.errors import SegmenterError
from blessmark.types import Segmenter


def _anatomy() -> Segmenter:
    from blessmark.segment.anatomy import Anatomy

    return Anatomy()


def _vessels() -> Segmenter:
    from blessmark.segment.vessels import packaged

    return packaged()


def _whole() -> Segmenter:
    from blessmark.segment.whole import Whole

    return Whole()


#: id -> how it is built; a bare name means the last version listed
_BUILDERS: dict[str, Callable[[], Segmenter]] = {
    "anatomy/1": _anatomy,
    "vessels/1": _vessels,
    "whole/1": _whole,
}


def known() -> tuple[str, ...]:
    """The ids of all segmenters that this version can build."""
    return tuple(_BUILDERS)


def segmenter(name: str) -> Segmenter:
    """The segmenter of that name (`anatomy`: its newest version) or id (`anatomy/1`).

    Raises
    ------
    SegmenterError
        for a name that this version does not know; the message lists those it does
    """
    ids = {id_.partition("/")[0]: id_ for id_ in _BUILDERS}
    id_ = ids.get(name, name)
    if id_ not in _BUILDERS:
        raise SegmenterError(f"no segmenter is called {name!r}; this version has {', '.join(known())}")
    return _build(id_)


@cache
def _build(id_: str) -> Segmenter:
    return _BUILDERS[id_]()
