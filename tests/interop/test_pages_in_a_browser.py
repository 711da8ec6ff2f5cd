"""The pages in headless Chromium: offline, by mouse and by keys, on desk and phone, in the dark, on paper."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from prometheus_client import CollectorRegistry
from pydicom.dataset import Dataset

from blessmark import pixels
from blessmark.payload.record import FULL_FIELDS
from blessmark.segment import segmenter
from dicom_node import cli
from dicom_node.http import HttpServer
from dicom_node.keys import FileKeyRing
from dicom_node.ledger import Ledger
from dicom_node.pages.status import StatusPage
from dicom_node.protect import Site, protect, written
from dicom_node.spool import Spool
from tests import builders, busy
from tests.builders import reread
from tests.interop.browser import Browser, chromium
from tests.strategies import OTHER_KEY, Ring

pytestmark = pytest.mark.interop

#: widths in CSS pixels; paper is A4 without its margins
_DESK, _PHONE, _PAPER = 1280, 400, 680
_TAB, _ENTER = ("Tab", 9), ("Enter", 13)
_HOSTILE = "<img src=x onerror=alert(1)>^Test"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with chromium(tmp_path_factory.mktemp("profile")) as started:
        yield started


@pytest.fixture
def tab(browser: Browser) -> Browser:
    """The browser, with nothing to complain of yet."""
    browser.dark(False)
    browser.complaints.clear()
    browser.requests.clear()
    return browser


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `verify --html` writes about two studies with an image of nearly every finding."""
    folder = tmp_path_factory.mktemp("report")
    ring, images, out = folder / "keyring", folder / "images", folder / "out"
    images.mkdir()
    assert cli.main(["keys", "new", "--keys", str(ring)]) == 0
    site = Site("node-1", FileKeyRing.load(ring), segmenter("anatomy"), FULL_FIELDS)
    other = Site("node-2", Ring(OTHER_KEY), segmenter("anatomy"), FULL_FIELDS)
    for name, ds in {
        "authentic": _marked(_mr(1), site),
        "second": _marked(_mr(2), site),
        "pixels": _painted_over(_marked(_mr(3), site)),
        "header": _renamed(_marked(_mr(4), site)),
        "unmarked": _mr(5),
        "wrong-key": _marked(_mr(6), other),
        "document": _mr(7, SOPClassUID="1.2.840.10008.5.1.4.1.1.481.2", Modality="RTDOSE"),
        "cine": _painted_over(_marked(builders.us(240, 320, frames=4, StudyInstanceUID="1.2.9"), site)),
    }.items():
        (images / f"{name}.dcm").write_bytes(written(ds))
    (images / "<b>bro'\"ken.dcm").write_bytes(b"nonsense")
    assert cli.main(["verify", str(images), "--keys", str(ring), "--html", str(out), "--show-record"]) == 1
    return out


def _mr(number: int, **attributes: object) -> Dataset:
    named = {
        "PatientName": _HOSTILE,
        "StudyInstanceUID": "1.2.8",
        "SeriesInstanceUID": "1.2.8.1",
        "InstanceNumber": number,
    }
    return reread(builders.mr(256, 256, seed=number, **{**named, **attributes}))


def _marked(ds: Dataset, site: Site) -> Dataset:
    ds = reread(ds)
    assert protect(ds, site, 1_790_012_800).changed
    return pixels.read(written(ds))


def _painted_over(ds: Dataset) -> Dataset:
    image = pixels.load(ds)
    assert isinstance(image, pixels.Image)
    frames = [frame.samples.copy() for frame in image]
    frames[-1][:, 20:90, 30:150] = np.roll(frames[-1], 9, axis=2)[:, 20:90, 30:150]
    pixels.store(ds, image, frames)
    return ds


def _renamed(ds: Dataset) -> Dataset:
    ds.PatientName = "Somebody^Else"
    return ds


@pytest.fixture(scope="module")
def pages(report: Path) -> list[Path]:
    return sorted(report.glob("*.html"))


@pytest.fixture(scope="module")
def status(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a node in the middle of its day."""
    folder = tmp_path_factory.mktemp("node")
    book = Ledger(folder / "ledger.sqlite")
    busy.fill(book)
    page = StatusPage(busy.config(folder), book, Spool(folder / "spool", 0), lambda: ["spool"])
    server = HttpServer("127.0.0.1", 0, CollectorRegistry(), lambda: ["spool"], page)
    server.start()
    yield f"http://127.0.0.1:{server.port}/"
    server.stop()
    book.close()


def test_there_is_an_index_and_a_page_a_study(pages: list[Path]) -> None:
    assert [page.name for page in pages] == ["index.html", "study-1.html", "study-2.html"]


def test_pages_are_quiet_and_ask_nobody(tab: Browser, pages: list[Path], status: str) -> None:
    """No error on the console, and nothing is asked for but the page and the pictures that stand in it."""
    for address in (*(page.as_uri() for page in pages), status):
        tab.open(address)
        tab.settle()
        assert tab.complaints == []
        asked = {url for url in tab.requests if not url.startswith("data:image/")}
        assert asked <= {address, f"{status}favicon.ico"}
        tab.requests.clear()


def test_pictures_are_drawn(tab: Browser, report: Path) -> None:
    """Every picture decodes, and the one of an image shows more than one grey."""
    tab.open((report / "study-2.html").as_uri())
    broken = tab.evaluate(
        "Promise.all([...document.querySelectorAll('img, svg image')].map(async shown => {"
        "  const one = new Image(); one.src = shown.src || shown.getAttribute('href');"
        "  try { await one.decode() } catch { return one.src.slice(0, 60) }"
        "})).then(all => all.filter(Boolean))"
    )
    assert broken == []
    assert tab.evaluate("document.querySelectorAll('svg image').length") > 8


@pytest.mark.parametrize("width", [_DESK, _PHONE, 320])
def test_nothing_is_wider_than_the_window(tab: Browser, pages: list[Path], status: str, width: int) -> None:
    for address in (*(page.as_uri() for page in pages), status):
        tab.open(address, width)
        tab.evaluate("document.querySelectorAll('details').forEach(each => each.open = true)")
        tab.settle()
        assert tab.evaluate("document.documentElement.scrollWidth") <= width, address


def test_the_keyboard_reaches_and_opens_everything(tab: Browser, report: Path) -> None:
    """Tab goes through the page in its order, from the link that skips to the content; Enter opens."""
    page = (report / "study-2.html").as_uri()
    tab.open(page)
    tab.evaluate("document.querySelectorAll('details').forEach(each => each.open = false)")
    wanted = tab.evaluate("document.querySelectorAll('a, summary, [tabindex=\"0\"]').length")
    places = []
    for _ in range(wanted + 40):
        tab.press(*_TAB)
        what = tab.evaluate(
            "[document.activeElement.tagName, "
            "[...document.querySelectorAll('*')].indexOf(document.activeElement)]"
        )
        if what[0] == "BODY":
            break
        places.append(what[1])
        if what[0] == "SUMMARY":
            tab.press(*_ENTER)
            assert tab.evaluate("document.activeElement.parentElement.open")
    assert places == sorted(set(places))
    assert tab.evaluate("[...document.querySelectorAll('details')].every(each => each.open)")
    assert tab.complaints == []
    tab.open(page)
    tab.press(*_TAB)
    tab.press(*_ENTER)
    assert tab.evaluate("location.hash") == "#content"


def test_the_mouse_opens_everything_and_every_link_leads_somewhere(tab: Browser, pages: list[Path]) -> None:
    for page in pages:
        tab.open(page.as_uri())
        for number in range(tab.evaluate("document.querySelectorAll('summary').length")):
            summary = f"document.querySelectorAll('summary')[{number}]"
            before = tab.evaluate(f"{summary}.parentElement.open")
            tab.evaluate(f"{summary}.scrollIntoView({{block: 'center'}})")
            place = tab.evaluate(f"(r => [r.x + 12, r.y + r.height / 2])({summary}.getBoundingClientRect())")
            tab.click(*place)
            tab.settle()
            assert tab.evaluate(f"{summary}.parentElement.open") is not before
        for link in tab.evaluate(
            "[...document.querySelectorAll('a')].map(each => each.getAttribute('href'))"
        ):
            if link.startswith("#"):
                assert tab.evaluate(f"document.getElementById({link[1:]!r}) !== null"), link
            else:
                assert (page.parent / link).exists()
                tab.open((page.parent / link).as_uri())
                assert tab.evaluate("document.querySelectorAll('h1').length") == 1
                tab.open(page.as_uri())
        assert tab.complaints == []


def test_everything_that_is_shown_or_operated_has_a_name(
    tab: Browser, pages: list[Path], status: str
) -> None:
    """In the tree that a screen reader gets."""
    for address in (*(page.as_uri() for page in pages), status):
        tab.open(address)
        tab.evaluate("document.querySelectorAll('details').forEach(each => each.open = true)")
        nodes = tab.call("Accessibility.getFullAXTree")["nodes"]
        named = {"image", "link", "DisclosureTriangle", "heading", "region", "RootWebArea"}
        met: set[str] = set()
        for node in nodes:
            role = node.get("role", {}).get("value")
            if role in named and not node.get("ignored"):
                met.add(role)
                assert node.get("name", {}).get("value"), (address, role)
        assert {"link", "heading", "region", "RootWebArea"} <= met


@pytest.mark.parametrize("dark", [False, True])
def test_every_text_stands_out(tab: Browser, pages: list[Path], status: str, dark: bool) -> None:
    """4.5 to 1 at least (WCAG 2.2, 1.4.3), as computed for every text that is on the page."""
    tab.dark(dark)
    for address in (*(page.as_uri() for page in pages), status):
        tab.open(address)
        tab.evaluate("document.querySelectorAll('details').forEach(each => each.open = true)")
        assert tab.evaluate(_CONTRAST) == [], address


_CONTRAST = """
(() => {
  const channels = text => text.match(/[\\d.]+/g).map(Number);
  const linear = v => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
  const light = ([r, g, b]) => 0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b);
  const ground = one => {
    for (let each = one; each; each = each.parentElement) {
      const found = channels(getComputedStyle(each).backgroundColor);
      if (found.length === 3 || found[3] > 0) return found;
    }
    return [255, 255, 255];
  };
  const poor = [];
  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walk.nextNode()) {
    const one = walk.currentNode.parentElement;
    if (!walk.currentNode.data.trim() || one.closest('svg') || !one.checkVisibility()) continue;
    const [a, b] = [light(channels(getComputedStyle(one).color)), light(ground(one))];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < 4.5) poor.push([walk.currentNode.data.trim().slice(0, 30), ratio]);
  }
  return poor;
})()
"""


def test_paper_shows_what_is_folded(tab: Browser, report: Path, tmp_path: Path) -> None:
    page = (report / "study-2.html").as_uri()
    tab.open(page, _PAPER)
    tab.evaluate("document.querySelectorAll('details').forEach(each => each.open = false)")
    tab.call("Emulation.setEmulatedMedia", media="print")
    tab.settle()
    hidden = tab.evaluate(
        "[...document.querySelectorAll('details')].filter(each =>"
        " ![...each.children].some(one =>"
        "   one.tagName !== 'SUMMARY' && one.getBoundingClientRect().height > 0)).length"
    )
    width = tab.evaluate("document.documentElement.scrollWidth")
    tab.call("Emulation.setEmulatedMedia", media="")
    assert hidden == 0
    assert width <= _PAPER
    printed = tab.pdf()
    assert printed.startswith(b"%PDF")
    assert len(re.findall(rb"/Type\s*/Page\b", printed)) >= 2


def test_what_got_in_after_all_would_not_run(tab: Browser, report: Path, status: str) -> None:
    """The policy holds where escaping would have failed."""
    for address in ((report / "study-1.html").as_uri(), status):
        tab.open(address)
        tab.evaluate(
            "document.body.insertAdjacentHTML('beforeend',"
            ' \'<img src="x:" onerror="window.ran = 1"><svg onload="window.ran = 2"></svg>'
            '<p id=styled style="color: red">x</p>\')'
        )
        tab.evaluate("new Promise(done => setTimeout(done, 100))")
        assert tab.evaluate("window.ran === undefined")
        assert tab.evaluate("getComputedStyle(document.getElementById('styled')).color") != "rgb(255, 0, 0)"
        assert any("Content Security Policy" in said for said in tab.complaints)
        tab.complaints.clear()


def test_pictures_of_the_pages(tab: Browser, pages: list[Path], status: str, tmp_path: Path) -> None:
    """For whoever changes the style: `--basetemp` keeps them."""
    for width in (_DESK, _PHONE):
        for name, address in (*((page.stem, page.as_uri()) for page in pages), ("status", status)):
            tab.open(address, width)
            tab.settle()
            shot = tmp_path / f"{name}-{width}.png"
            tab.screenshot(shot)
            assert shot.stat().st_size > 10_000
