"""Pages escape what they are given, run nothing, load nothing, and can be read by everybody."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterator
from importlib import resources

import pytest
from jinja2 import UndefinedError

from dicom_node.pages.rendering import data_uri, policy, rendered, streamed, style
from tests.found import picture


def test_a_value_is_text_wherever_it_stands() -> None:
    hostile = "\"'><script>alert(1)</script>&"
    row = rendered("other.html.j2", source=hostile, said=hostile)
    assert "<script" not in row
    assert row.count("&lt;script&gt;") == 2
    assert '"' not in row.replace('class="mono"', "")


def test_a_fact_that_nobody_gives_is_an_error() -> None:
    with pytest.raises(UndefinedError):
        rendered("other.html.j2")


def test_the_policy_allows_the_one_style_sheet_and_pictures_in_the_page() -> None:
    digest = base64.b64encode(hashlib.sha256(style().encode()).digest()).decode()
    assert f"style-src 'sha256-{digest}'" in policy()
    assert policy().startswith("default-src 'none'; img-src data:;")
    assert "unsafe" not in policy()
    assert "script-src" not in policy()


def test_no_template_holds_a_script_a_style_of_its_own_or_an_address() -> None:
    folder = resources.files("dicom_node.pages") / "templates"
    for file in folder.iterdir():
        text = file.read_text("utf-8")
        wrong = r"<script|javascript:|\son\w+=|\sstyle=|https?:|@import|url\((?!#)"
        assert not re.search(wrong, text), file.name


def test_what_is_streamed_is_what_is_rendered() -> None:
    template, facts = "other.html.j2", {"source": "a", "said": "b"}
    assert "".join(streamed(template, **facts)) == rendered(template, **facts)


def test_pictures_say_what_they_are() -> None:
    assert data_uri(picture(kind="PNG")).startswith("data:image/png;base64,iVBOR")
    assert data_uri(picture(kind="WEBP")).startswith("data:image/webp;base64,UklGR")


# contrast, by WCAG 2.2 1.4.3

_TEXTS = ("text", "quiet", "link", "good", "bad", "open")
_GROUNDS = ("ground", "raised")


def _themes() -> Iterator[tuple[str, dict[str, str]]]:
    blocks = re.findall(r":root \{(.*?)\}", style(), re.S)
    light = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", blocks[0]))
    for name, block in zip(("light", "dark", "print"), blocks, strict=True):
        yield name, light | dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", block))


def _luminance(colour: str) -> float:
    def linear(channel: float) -> float:
        return channel / 12.92 if channel <= 0.04045 else ((channel + 0.055) / 1.055) ** 2.4

    red, green, blue = (linear(int(colour[at : at + 2], 16) / 255) for at in (1, 3, 5))
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    high, low = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_contrast_of_black_on_white_is_that_of_the_standard() -> None:
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)


@pytest.mark.parametrize(("name", "theme"), list(_themes()))
def test_every_text_can_be_read_on_every_ground(name: str, theme: dict[str, str]) -> None:
    pairs = [(text, ground) for text in _TEXTS for ground in _GROUNDS]
    tones = ("good", "bad", "open")
    pairs += [(text, f"{tone}-ground") for tone in tones for text in ("text", "quiet", tone)]
    poor = {pair: contrast(theme[pair[0]], theme[pair[1]]) for pair in pairs}
    assert {pair: value for pair, value in poor.items() if value < 4.5} == {}
