"""One version, everywhere."""

from __future__ import annotations

import re
from importlib import metadata

from dicom_node import __version__
from tests.architecture.repository import ROOT


def test_the_changelog_opens_with_this_version() -> None:
    first = re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text("utf-8"), re.M)
    assert first is not None
    assert first[1] == __version__


def test_what_is_installed_is_this_version() -> None:
    assert metadata.version("dicom-node") == __version__
