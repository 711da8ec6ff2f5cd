"""Templates to pages: everything is escaped, and no page may load or run anything.

The one style sheet stands inside each page, and the page's Content-Security-Policy allows it by its hash; so
a style or a script that got in by way of a header would not run even if the escaping failed.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator
from functools import cache
from importlib import resources

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from dicom_node.problem import printable


@cache
def style() -> str:
    """The style sheet that stands inside every page."""
    return (resources.files("dicom_node.pages") / "templates" / "style.css").read_text("utf-8")


@cache
def policy() -> str:
    """The Content-Security-Policy of every page: its own style sheet, its own pictures, nothing else."""
    digest = base64.b64encode(hashlib.sha256(style().encode()).digest()).decode()
    return (
        f"default-src 'none'; img-src data:; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    )


def rendered(template: str, **facts: object) -> str:
    """One template with its facts; a fact that the template wants and nobody gives is an error."""
    return _environment().get_template(template).render(**facts)


def streamed(template: str, **facts: object) -> Iterator[str]:
    """The same piece by piece, for pages that are larger than what is kept in memory."""
    return _environment().get_template(template).generate(**facts)


@cache
def _environment() -> Environment:
    made = Environment(
        loader=PackageLoader("dicom_node.pages"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_shown,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    made.filters["data_uri"] = data_uri
    made.globals.update(policy=policy, style=style)
    return made


def _shown(value: object) -> object:
    """A text with what steers the eye written out: a name may hold what turns the line around."""
    return printable(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def data_uri(picture: bytes) -> Markup:
    """A picture in the page itself; PNG or WebP, told by its first bytes."""
    kind = "png" if picture.startswith(b"\x89PNG") else "webp"
    # nothing in it can end an attribute
    return Markup(f"data:image/{kind};base64,{base64.b64encode(picture).decode()}")  # noqa: S704
