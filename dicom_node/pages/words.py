"""What a finding means in plain words, what it proves and what it does not; pure functions of a report."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from dicom_node.report import FrameReport, InstanceReport

#: findings as a page lists them, best first
FINDINGS = (
    "authentic",
    "header-altered",
    "pixels-altered",
    "damaged",
    "unknown-segmenter",
    "wrong-key",
    "unmarked",
)
#: names of altered fields, or numbers of frames, that a sentence spells out
_SPELLED_OUT = 6


@dataclass(frozen=True, slots=True)
class Meaning:
    """What one finding is called, shown as, and worth.

    `tone` is "good", "bad" or "open"; `symbol` says the same without colour. `numbers` are those of
    the threat model that `proves` and `leaves_open` rest on.
    """

    title: str
    tone: str
    symbol: str
    proves: str
    leaves_open: str
    numbers: tuple[str, ...]


MEANINGS: Mapping[str, Meaning] = {
    "authentic": Meaning(
        "Authentic",
        "good",
        "✓",
        "The record opens with the key, the header agrees with it, and every pixel is what it was made for.",
        "Who held the key, whether its clock was right, whether other images are missing, and header fields "
        "that did not travel in the record.",
        ("G2", "G3", "G4", "N6", "N9", "N10"),
    ),
    "header-altered": Meaning(
        "Header altered",
        "bad",
        "✗",
        "The pixels are what the record was made for; the fields named differ from what travelled in them.",
        "Who changed the header, and why: a correction by the hospital looks the same as a forgery.",
        ("G3", "G4", "N6", "N15"),
    ),
    "pixels-altered": Meaning(
        "Pixels altered",
        "bad",
        "✗",
        "The record is authentic, and the pixels are not the ones that it was made for.",
        "What the image showed before, inside the tiles in red. Where a change is, is known less surely than "
        "that there is one.",
        ("G2", "G3", "N5", "N16"),
    ),
    "damaged": Meaning(
        "Damaged",
        "bad",
        "!",
        "The image was protected and is not whole: parts of its watermark are left, or only its label.",
        "Whose image it was and whether the pixels changed: the record cannot be read any more. Lossy "
        "compression, scaling and cropping end like this.",
        ("N1", "N4", "N8"),
    ),
    "unknown-segmenter": Meaning(
        "Not judged: another version",
        "open",
        "?",
        "Nothing. The region of interest was drawn by a network that this installation lacks.",
        "Everything; verify it with the version that is named.",
        ("N8",),
    ),
    "wrong-key": Meaning(
        "Not judged: another key",
        "open",
        "?",
        "Nothing. The header names a key that is not in the ring used here.",
        "Everything; the name of the key in the header is a hint that anybody can forge.",
        ("N8",),
    ),
    "unmarked": Meaning(
        "No watermark",
        "open",
        "\N{EN DASH}",
        "Nothing. There is nothing in this object that the keys used here can read.",
        "Whether it ever was protected: a watermark can be removed by whoever does not mind being noticed.",
        ("N1", "N17"),
    ),
}

#: the statements of docs/threat-model.md that findings rest on, in short
STATEMENTS: Mapping[str, str] = {
    "G2": "A forged or altered record is accepted with a probability of 2⁻¹²⁸.",
    "G3": "Any change of any sample is detected, the region of interest included; so are missing and "
    "exchanged frames.",
    "G4": "The fields that travel in the record are compared with the header byte for byte.",
    "N1": "Whoever does not mind being noticed can destroy the watermark; that it is missing proves nothing.",
    "N4": "One forged packet passes with a probability of 2⁻³²; it can spoil a record, not make one.",
    "N5": "Where a change is, is weaker than whether there is one: indicative tiles are an upper bound, and "
    "a changed cell escapes location, not detection, once in 256 times.",
    "N6": "Header fields outside the record are not compared.",
    "N8": "Which key or network the header names is a hint; it can be forged, and makes nothing authentic.",
    "N9": "The keys are symmetric: whoever can verify can also forge.",
    "N10": "Times and node ids in the record are claims of the machine that held the key.",
    "N15": "Whose image it is, is known as far as the record says.",
    "N16": "A change that removing the watermark undoes is not reported: the restored image is the original.",
    "N17": "What a de-identifying route sealed into the header can be cut off.",
    "N19": "An image of the carrier dct is proven as it was released; it restores nearly, not exactly.",
}


_ANYBODY = "whoever has it could have made that"
#: no more than this is compared (N6)
_UNCHANGED = "No pixel and no field of the record was changed."


def sentence(report: InstanceReport) -> str:
    """The verdict on one instance as a person would say it."""
    said = _SENTENCES[report.finding](report)
    if report.key_revoked:
        said += (
            f" But its key was revoked on {spoken(report.key_revoked)}: whoever has it could have made this."
        )
    return said + _looks_like(report) + _SIGNED.get(report.signature.state, "")


#: what is said of a signature behind the verdict, which it never changes
_SIGNED = {
    "valid": " Its signature holds.",
    "invalid": " Its signature does not hold for what is here.",
    "revoked": " It is signed with a key that is trusted no more.",
}


def _looks_like(report: InstanceReport) -> str:
    """The likeliest causes of a change; statistics, and called a hint."""
    causes = list(dict.fromkeys(cause for frame in report.frames for cause, _ in frame.causes[:1]))
    return f" It looks like {listed(causes)}; that is a hint, no proof." if causes else ""


def _authentic(report: InstanceReport) -> str:
    if not report.frames:
        return "This object is what the node wrote, and undoing that gives back the original byte for byte."
    if any(frame.restoration == "approximate" for frame in report.frames):
        return f"This image is, to the last bit, what {_origin(report)}. {_UNCHANGED}"
    return f"This image is what {_origin(report)}. {_UNCHANGED}"


def _header_altered(report: InstanceReport) -> str:
    names = altered_fields(report)
    if not names:
        return "This object is not what the node wrote: something in its header was changed."
    what = f"{listed(names)} {'differs' if len(names) == 1 else 'differ'} from the record"
    return f"The pixels are what {_origin(report)}. The header is not: {what}."


def _pixels_altered(report: InstanceReport) -> str:
    return f"This image is not what {_origin(report)}: {', and '.join(_differences(report))}."


def _differences(report: InstanceReport) -> list[str]:
    bad = [frame.frame for frame in report.frames if frame.finding not in ("authentic", "header-altered")]
    tiles = sum(len(frame.altered_tiles) for frame in report.frames)
    where = f" in {counted(tiles, 'tile')} of 64 \N{MULTIPLICATION SIGN} 64 pixels" if tiles else ""
    found = []
    if len(report.frames) == 1:
        found.append(f"its pixels were changed{where}")
    elif bad:
        found.append(f"the pixels of {_numbered(bad)} were changed{where}")
    if report.frames_expected not in (0, len(report.frames)):
        found.append(
            f"it was protected with {counted(report.frames_expected, 'frame')}, and has "
            f"{len(report.frames)} now"
        )
    return found or ["its frames are not those that were protected together"]


def _numbered(frames: Sequence[int]) -> str:
    if len(frames) > _SPELLED_OUT:
        return f"{len(frames)} frames"
    return f"{'frame' if len(frames) == 1 else 'frames'} {listed([str(number) for number in frames])}"


def _damaged(report: InstanceReport) -> str:
    if any(frame.packets for frame in report.frames):
        return (
            "This image was protected, and was damaged since: parts of its watermark are authentic, too "
            "little to read the record."
        )
    return (
        "The header says that this image is protected, and its watermark cannot be read: the image was "
        "changed all over, or the header is not true."
    )


def _unknown_segmenter(report: InstanceReport) -> str:
    lacking = [f.segmenter for f in report.frames if f.finding == "unknown-segmenter"]
    return (
        f"This image was marked with {listed(sorted(set(lacking))) or 'a network'}, which this installation "
        "lacks; it cannot be judged here."
    )


def _wrong_key(report: InstanceReport) -> str:  # noqa: ARG001
    return "The header says that this image is protected under a key that is not in the ring used here."


def _unmarked(report: InstanceReport) -> str:
    if report.reason:
        return (
            f"This object has no pixels that are ever marked ({report.reason}), and its header is not sealed."
        )
    return "There is no watermark in this image that the keys used here can read."


_SENTENCES = {
    "authentic": _authentic,
    "header-altered": _header_altered,
    "pixels-altered": _pixels_altered,
    "damaged": _damaged,
    "unknown-segmenter": _unknown_segmenter,
    "wrong-key": _wrong_key,
    "unmarked": _unmarked,
}


def _origin(report: InstanceReport) -> str:
    """`node-1 protected on 21 September 2026 at 17:46:40 UTC`, as far as the record says."""
    return f"{report.node or 'the holder of the key'} protected{_on(report.protected_at)}"


def _on(moment: str) -> str:
    return f" on {spoken(moment)}" if moment else ""


def spoken(moment: str) -> str:
    """An ISO 8601 time in UTC as it is read aloud; as it came if it is none."""
    try:
        at = datetime.fromisoformat(moment)
    except ValueError:
        return moment
    return f"{at.day} {at:%B %Y} at {at:%H:%M:%S} UTC"


def overall(
    counts: Mapping[str, int], unreadable: int = 0, missing: int = 0, revoked: int = 0
) -> tuple[str, str]:
    """The verdict on many instances and its tone, by how many of each finding there are.

    `unreadable` files could not be judged; `missing` ones are listed by an index and not there; `revoked`
    ones were marked with a key that is revoked since.
    """
    verdict, tone = _overall(counts)
    if unreadable:
        verdict += f" {counted(unreadable, 'file')} could not be read."
    if missing:
        verdict += f" {counted(missing, 'file')} {'is' if missing == 1 else 'are'} missing."
    if revoked:
        verdict += f" The key of {counted(revoked, 'image')} was revoked; {_ANYBODY}."
    return verdict, "open" if tone == "good" and (unreadable or missing or revoked) else tone


def _overall(counts: Mapping[str, int]) -> tuple[str, str]:
    total, authentic = sum(counts.values()), counts.get("authentic", 0)
    images = counted(total, "image")
    bad = sum(number for finding, number in counts.items() if MEANINGS[finding].tone == "bad")
    unjudged = total - authentic - bad
    if not total:
        return "There was nothing to judge.", "open"
    if bad:
        others = f", and {unjudged} could not be judged" if unjudged else ""
        return f"{bad} of {images} {'is' if bad == 1 else 'are'} not what was protected{others}.", "bad"
    if unjudged and authentic:
        return f"{unjudged} of {images} could not be judged; the rest is what was protected.", "open"
    if unjudged:
        return f"None of {images} could be judged.", "open"
    all_of = "The only image is" if total == 1 else f"All {images} are"
    return f"{all_of} what was protected. {_UNCHANGED}", "good"


def facts(report: InstanceReport) -> list[tuple[str, str]]:
    """What is known of one instance, as name and value, in the order in which it is asked for."""
    known = [
        ("SOP Instance UID", report.place.instance),
        ("Record names this", listed(report.bound_to)),
        ("Frames", _frames(report)),
        ("Protected", _protected(report)),
        ("Key", listed(sorted({f"{f.key_id}" for f in report.frames if f.key_id is not None}))),
        ("Record", _carried(report.frames)),
        ("Room", _room(report.frames)),
        ("Region of interest by", listed(sorted({f.segmenter for f in report.frames if f.segmenter}))),
        ("Changed by the watermark", _changed(report.frames)),
        ("PSNR", _psnr(report.frames)),
        ("Restores", _restores(report.frames)),
        ("Where", _where(report.frames)),
        ("Passed on because", report.reason),
        ("SHA-256 of the data set", report.content),
    ]
    return [(name, value) for name, value in known if value]


def _frames(report: InstanceReport) -> str:
    if len(report.frames) < 2 and report.frames_expected in (0, 1):
        return ""
    wrong = report.frames_expected not in (0, len(report.frames))
    return f"{len(report.frames)}{f' of {report.frames_expected}' if wrong else ''}"


def _protected(report: InstanceReport) -> str:
    if not report.protected_at and not report.node:
        return ""
    return f"{spoken(report.protected_at)} by {report.node or 'a node without a name'} (N10)"


def _carried(frames: Sequence[FrameReport]) -> str:
    framing = next((f for f in frames if f.framing), None)
    if framing is None:
        return ""
    how = {
        "tile": "in the pixels, a packet a tile",
        "global": "in the pixels, over the whole image",
        "blocks": f"in the pixels, in blocks of {framing.block_px}, as the BlessMark paper does",
        "header": "sealed in the header: the pixels have no room",
    }
    return f"{framing.tier or 'not readable'}, {how.get(framing.framing or '', framing.framing)}"


def _room(frames: Sequence[FrameReport]) -> str:
    tiled = [f for f in frames if f.framing == "tile"]
    if not tiled:
        return ""
    least = min(tiled, key=lambda f: f.packets)
    return (
        f"the record takes {counted(least.shards_needed, 'shard')}; "
        f"{counted(least.packets, 'tile')} hold authentic ones"
    )


def _changed(frames: Sequence[FrameReport]) -> str:
    marked = [f.changed_samples for f in frames if f.framing in ("tile", "global", "blocks")]
    return counted(sum(marked), "sample") if marked else ""


def _psnr(frames: Sequence[FrameReport]) -> str:
    levels = [f.psnr_db for f in frames if f.psnr_db is not None and math.isfinite(f.psnr_db)]
    return f"{min(levels):.1f} dB between marked and restored" if levels else ""


def _restores(frames: Sequence[FrameReport]) -> str:
    if not frames or all(f.restoration == "none" for f in frames):
        return ""
    if all(f.restoration == "exact" for f in frames):
        return "bit for bit, proven by the hash in the record"
    nearly = [f.restored_psnr_db for f in frames if f.restored_psnr_db is not None]
    if nearly and all(f.restoration != "none" for f in frames):
        return f"nearly, to {min(nearly):.1f} dB (N19)"
    return "only in part"


def _where(frames: Sequence[FrameReport]) -> str:
    trusted = {f.localisation for f in frames if f.altered_tiles}
    if not trusted:
        altered = any(f.finding == "pixels-altered" for f in frames)
        return "not located: the record had no room for the grid that would tell (N5)" if altered else ""
    if trusted == {"exact"}:
        return "tiles in red were changed; a changed cell escapes location once in 256 times (N5)"
    return (
        "tiles in red are an upper bound: the map may have been redrawn, and silenced tiles that nobody "
        "touched (N5)"
    )


def altered_fields(report: InstanceReport) -> list[str]:
    """The header fields that differ from the record, in any frame, by keyword."""
    return sorted({name for frame in report.frames for name in frame.altered_fields})


def counted(number: int, what: str) -> str:
    """`1 tile`, `2 tiles`, `12,345 tiles`."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def listed(names: Iterable[str]) -> str:
    """`a`, `a and b`, `a, b and 3 more`."""
    words = list(names)
    if len(words) > _SPELLED_OUT:
        words = [*words[: _SPELLED_OUT - 1], f"{len(words) - _SPELLED_OUT + 1} more"]
    return " and ".join(filter(None, (", ".join(words[:-1]), *words[-1:])))
