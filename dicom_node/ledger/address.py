"""Where a server is and as whom one comes, put together at the last moment: the password is in no text."""

from __future__ import annotations

import sqlalchemy as sa


def address(url: str, password: str | None) -> sa.URL:
    """The address of a database, with the password that the configuration does not hold."""
    found = sa.make_url(url)
    return found if password is None else found.set(password=password)
