"""Has the documentation's pages take in what lies outside docs/, for mkdocs (`make site`)."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

_ROOT = Path(__file__).resolve().parents[1]
_DOCS = _ROOT / "docs"
#: documents that belong to the repository and are read beside the manual
_OUTSIDE = {"CHANGELOG.md": "CHANGELOG.md", "RESULTS.md": "benchmarks/RESULTS.md"}
_LINK = re.compile(r"\[(?P<text>[^\]]*)\]\((?P<target>[^)#\s]+)(?P<anchor>#[^)]*)?\)")


def on_config(config: Any) -> Any:
    """List the decisions by their numbers."""
    decisions = sorted((_ROOT / "docs" / "adr").glob("*.md"))
    config.nav[-1]["Decisions"] = [f"adr/{path.name}" for path in decisions]
    return config


def on_files(files: Files, config: Any) -> Files:
    """Take in the documents from outside."""
    for name, source in _OUTSIDE.items():
        files.append(File.generated(config, name, abs_src_path=str(_ROOT / source)))
    return files


def on_page_markdown(markdown: str, page: Page, config: Any, files: Files) -> str:  # noqa: ARG001 - mkdocs names them
    """Have links lead to pages; what is no page of the manual is named in place of being linked."""
    folder = _source_of(page).parent
    depth = len(Path(page.file.src_uri).parts) - 1
    return _LINK.sub(lambda link: _redirected(link, folder, depth), markdown)


def _source_of(page: Page) -> Path:
    outside = _OUTSIDE.get(page.file.src_uri)
    return _ROOT / outside if outside else _ROOT / "docs" / page.file.src_uri


def _redirected(link: re.Match[str], folder: Path, depth: int) -> str:
    if re.match(r"[a-z]+:", link["target"]):
        return link[0]
    meant = (folder / link["target"]).resolve()
    if meant.is_dir() and (documents := sorted(meant.glob("*.md"))):
        meant = documents[0]
    inside = {(_ROOT / source).resolve(): Path(name) for name, source in _OUTSIDE.items()}
    if meant.is_relative_to(_DOCS):
        place = meant.relative_to(_DOCS)
    elif meant in inside:
        place = inside[meant]
    else:
        return f"{link['text']} (`{meant.relative_to(_ROOT)}`)"
    return f"[{link['text']}]({'../' * depth}{place}{link['anchor'] or ''})"
