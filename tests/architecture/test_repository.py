"""What must not be in the repository, and that its documents point at what is there."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from tests.architecture.repository import ROOT, files, modules

#: folders of somebody's machine; written in two parts, so that this file does not hold them
_MACHINE_PATHS = re.compile(
    rb"(?<![\w./])/" + rb"(work|home|root|Users|opt/pypi\w*|opt/wheels)/|file:" + rb"///\w"
)
_LINK = re.compile(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)")
_LONGEST_FUNCTION = 45


def test_no_path_of_a_machine() -> None:
    found = [path.relative_to(ROOT) for path in files() if _MACHINE_PATHS.search(path.read_bytes())]
    assert found == []


def test_no_image_of_anybody() -> None:
    """Neither by name nor by content: tests make their images."""
    suffixes = {".dcm", ".dicom", ".ima", ".jpg", ".jpeg", ".tif"}
    found = [path for path in files() if path.suffix.lower() in suffixes or _is_dicom(path)]
    assert found == []


def _is_dicom(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(132)[128:] == b"DICM"


def test_the_pins_name_versions_and_nothing_else() -> None:
    lines = (ROOT / "constraints.txt").read_text("utf-8").splitlines()
    pins = [line for line in lines if line and not line.lstrip().startswith("#")]
    assert pins
    assert [pin for pin in pins if not re.fullmatch(r"[a-z0-9._-]+==[0-9][\w.]*( ; .*)?", pin)] == []


@pytest.mark.parametrize(
    "document", sorted(path for path in files() if path.suffix == ".md"), ids=lambda p: p.name
)
def test_links_lead_somewhere(document: Path) -> None:
    targets = _LINK.findall(document.read_text("utf-8"))
    assert [target for target in targets if not (document.parent / target).exists()] == []


def test_the_readme_shows_what_ci_runs() -> None:
    readme = (ROOT / "README.md").read_text("utf-8")
    assert "\nmake test\n" in (ROOT / ".ci" / "run").read_text("utf-8")
    assert "\nmake test " in readme
    assert "\nmake demo " in readme


@pytest.mark.parametrize("package", ["blessmark", "dicom_node"])
def test_functions_are_small(package: str) -> None:
    """None is longer than a screen, docstring included."""
    long = [
        f"{name}.{function.name}"
        for name, path in modules(package).items()
        for function in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
        and (function.end_lineno or 0) - function.lineno >= _LONGEST_FUNCTION
    ]
    assert long == []


@pytest.mark.parametrize("package", ["blessmark", "dicom_node"])
def test_modules_begin_with_what_they_are_for(package: str) -> None:
    silent = [
        name
        for name, path in modules(package).items()
        if not ast.get_docstring(ast.parse(path.read_text("utf-8")))
    ]
    assert silent == []
