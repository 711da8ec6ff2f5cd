"""What an archive is asked, and what it answers: levels, keys, rows of text (PS3.4 annex C, PS3.18 10.6).

Rules that bind here:
1. What comes off the wire is text that cannot harm a terminal, whatever bytes it was.
2. A wrong, missing or unknown character set spoils a name, never a table.
3. Keys are asked level by level, each below the one that was found above it: no archive needs to know
   relational queries.
"""

from __future__ import annotations

import enum
import unicodedata
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydicom.charset import convert_encodings, decode_bytes
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset

from dicom_node.errors import UsageError


class Level(enum.StrEnum):
    """Where in the hierarchy of an archive a question is asked."""

    PATIENT = "patient"
    STUDY = "study"
    SERIES = "series"
    IMAGE = "image"


#: the unique key of each level
UNIQUE = {
    Level.PATIENT: "PatientID",
    Level.STUDY: "StudyInstanceUID",
    Level.SERIES: "SeriesInstanceUID",
    Level.IMAGE: "SOPInstanceUID",
}
_LEVELS = tuple(Level)

_PATIENT = ("PatientID", "PatientName", "PatientBirthDate", "PatientSex")
#: what is asked for at each level, and in which order it is shown
RETURNED: Mapping[Level, tuple[str, ...]] = {
    Level.PATIENT: (*_PATIENT, "NumberOfPatientRelatedStudies"),
    Level.STUDY: (
        *_PATIENT,
        *("StudyDate", "StudyTime", "AccessionNumber", "StudyDescription", "ModalitiesInStudy"),
        *("NumberOfStudyRelatedSeries", "NumberOfStudyRelatedInstances", "StudyInstanceUID"),
    ),
    Level.SERIES: (
        *("Modality", "SeriesNumber", "SeriesDescription", "BodyPartExamined"),
        *("NumberOfSeriesRelatedInstances", "SeriesInstanceUID"),
    ),
    Level.IMAGE: ("InstanceNumber", "NumberOfFrames", "SOPClassUID", "SOPInstanceUID"),
}
#: at which level a key is matched; a key that is not here is matched where the question ends
_MATCHED_AT: Mapping[str, Level] = {
    **dict.fromkeys((*_PATIENT, *RETURNED[Level.STUDY], "StudyID", "ReferringPhysicianName"), Level.STUDY),
    **dict.fromkeys((*RETURNED[Level.SERIES], "ProtocolName", "SeriesDate"), Level.SERIES),
    **dict.fromkeys((*RETURNED[Level.IMAGE], "ContentDate"), Level.IMAGE),
}
_NUMBERS = frozenset({"US", "SS", "UL", "SL", "FL", "FD", "UV", "SV"})
#: values of no interest to a table
_UNSHOWN = frozenset({"SQ", "OB", "OW", "UN", "OF", "OD", "OL", "OV", "AT"})
_DELIMITERS = {ord(delimiter) for delimiter in "\\^="}
_ESCAPE = b"\x1b"
#: categories of characters that steer a terminal, or end a line of it
_STEERING = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})

Keys = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Row:
    """One match: its level and, by keyword, the text of what is known of it, from the levels above too."""

    level: Level
    values: Mapping[str, str] = field(repr=False)

    def get(self, keyword: str) -> str:
        """A value, "" where there is none; several are separated by backslashes."""
        return self.values.get(keyword, "")

    @property
    def unique(self) -> str:
        """The value of the unique key of its level."""
        return self.get(UNIQUE[self.level])

    def below(self, above: Row) -> Row:
        """The same row with what is known from the row that it was found under."""
        return Row(self.level, {**above.values, **{key: text for key, text in self.values.items() if text}})


@dataclass(frozen=True, slots=True)
class Inquiry:
    """A question: down to which level, what must match, and which keywords to return besides.

    Values of `matches` are those of PS3.4 section C.2.2.2: exact, with * and ?, ranges of dates and times,
    lists of UIDs separated by backslashes.
    """

    level: Level
    matches: Keys = field(default_factory=dict, repr=False)
    wanted: tuple[str, ...] = ()

    def steps(self) -> tuple[Level, ...]:
        """The levels to ask, from the top: patients by themselves, everything else from its study."""
        if self.level is Level.PATIENT:
            return (Level.PATIENT,)
        return _LEVELS[1 : _LEVELS.index(self.level) + 1]

    def matched_at(self, level: Level) -> dict[str, str]:
        """The matching keys of one level."""
        found = {key: value for key, value in self.matches.items() if self._level_of(key) is level}
        modality = self.matches.get("Modality")
        if level is Level.STUDY and modality:
            found["ModalitiesInStudy"] = modality
        return found

    def wanted_at(self, level: Level) -> tuple[str, ...]:
        """What to ask for at one level."""
        more = tuple(key for key in self.wanted if self._level_of(key) is level)
        return tuple(dict.fromkeys((*RETURNED[level], *more)))

    def _level_of(self, keyword: str) -> Level:
        if self.level is Level.PATIENT:
            return Level.PATIENT
        level = _MATCHED_AT.get(keyword, self.level)
        return level if _LEVELS.index(level) <= _LEVELS.index(self.level) else self.level

    def check(self) -> None:
        """Raise UsageError for keywords that do not exist, or a series or instance of no study."""
        for keyword in (*self.matches, *self.wanted):
            if tag_for_keyword(keyword) is None:
                raise UsageError(
                    f"{keyword} is no keyword of the data dictionary (PS3.6); try PatientID, StudyDate"
                )
            if _UNSHOWN & set(dictionary_VR(tag_for_keyword(keyword) or 0).split(" or ")):
                raise UsageError(f"{keyword} is no text and cannot be asked for")


@dataclass(frozen=True, slots=True)
class Order:
    """Instances of one study to be fetched by one request.

    `expected` is SOP Instance UID -> SOP class, "" where the archive did not tell; at image level these are
    what is asked for, above it everything that the study or series holds is.
    """

    level: Level
    study: str
    #: "" at study level
    series: str
    expected: Mapping[str, str] = field(repr=False)

    def of(self, uids: Iterable[str]) -> Order:
        """Some of these instances, by their own UIDs."""
        return Order(Level.IMAGE, self.study, self.series, {uid: self.expected[uid] for uid in uids})


@dataclass(frozen=True, slots=True)
class Told:
    """What an archive says of an order: its status, its counts, and the instances that it says failed."""

    status: int
    completed: int = 0
    failed: int = 0
    warning: int = 0
    failures: tuple[str, ...] = ()


# ---- what is said, as a data set, and back ----


def identifier(level: Level, keys: Keys, wanted: Sequence[str]) -> Dataset:
    """The Identifier of a C-FIND request: the level, the keys to match, and empty ones to be returned.

    Raises UsageError for a value that its key cannot have.
    """
    made = Dataset()
    said = character_set(keys.values())
    if said:
        made.SpecificCharacterSet = said
    made.QueryRetrieveLevel = level.upper()
    for keyword in wanted:
        setattr(made, keyword, None)
    for keyword, value in keys.items():
        try:
            setattr(made, keyword, value.split("\\") if "\\" in value else value)
        except (ValueError, TypeError, OverflowError) as error:
            raise UsageError(f"{keyword} takes no such value; is it a number or a range?") from error
    return made


def character_set(values: Iterable[str]) -> str:
    """The least that all of `values` can be written in (PS3.3 section C.12.1.1.2), "" for plain ASCII."""
    text = "".join(values)
    if text.isascii():
        return ""
    try:
        text.encode("latin-1")
    except UnicodeEncodeError:
        return "ISO_IR 192"
    return "ISO_IR 100"


def row_of(level: Level, found: Dataset, wanted: Iterable[str]) -> Row:
    """The row in the Identifier of a response; what cannot be read is shown as well as it can be."""
    names = _plain(found, "SpecificCharacterSet").split("\\")
    return Row(level, {keyword: _text(found, keyword, names) for keyword in wanted})


def row_of_json(level: Level, found: Mapping[str, object], wanted: Iterable[str]) -> Row:
    """The row in an object of the DICOM JSON model (PS3.18 annex F); always UTF-8."""
    return Row(level, {keyword: _json_text(found, keyword) for keyword in wanted})


def readable(value: bytes, charsets: Sequence[str]) -> str:
    """Text in the character sets that a data set names, or, where these cannot be right, in the likeliest."""
    if value.isascii() and _ESCAPE not in value:
        return shown(value.decode("ascii"))
    return shown(_declared(value, charsets) or _guessed(value))


def shown(text: str) -> str:
    """Text without what could move a cursor, ring a bell or turn a line round; of padding, nothing."""
    return "".join(
        f"\\x{ord(character):02x}" if unicodedata.category(character) in _STEERING else character
        for character in text.strip(" \0")
    )


def _declared(value: bytes, charsets: Sequence[str]) -> str | None:
    """As the data set says; None where it says nothing, or what is not true."""
    named = [name.strip() for name in charsets]
    if not any(named):
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            encodings = convert_encodings(named)
            if _ESCAPE in value:
                return decode_bytes(value, encodings, _DELIMITERS)
            return value.decode(encodings[0])
        except (LookupError, UnicodeError, UserWarning):
            return None


def _guessed(value: bytes) -> str:
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        return value.decode("latin-1")


def _text(found: Dataset, keyword: str, charsets: Sequence[str]) -> str:
    tag = tag_for_keyword(keyword)
    if tag is None or tag not in found:
        return ""
    element: Any = found.get_item(tag)
    raw = element.value
    if isinstance(element, RawDataElement) and isinstance(raw, bytes) and dictionary_VR(tag) not in _NUMBERS:
        return readable(raw, charsets)
    return _plain(found, keyword)


def _plain(found: Dataset, keyword: str) -> str:
    """A value as the library reads it; a value that it cannot read is none."""
    try:
        value = found.get(keyword)
    except Exception:
        return ""
    if value is None:
        return ""
    several = isinstance(value, Iterable) and not isinstance(value, str | bytes)
    return shown("\\".join(map(str, value)) if several and not hasattr(value, "components") else str(value))


def _json_text(found: Mapping[str, object], keyword: str) -> str:
    tag = tag_for_keyword(keyword)
    element = found.get(f"{tag:08X}") if tag is not None else None
    values = element.get("Value") if isinstance(element, Mapping) else None
    if not isinstance(values, list):
        return ""
    return shown("\\".join(_json_value(value) for value in values if value is not None))


def _json_value(value: object) -> str:
    if isinstance(value, Mapping):  # a name, by its representations
        parts = [str(value.get(kind, "")) for kind in ("Alphabetic", "Ideographic", "Phonetic")]
        return "=".join(parts).rstrip("=")
    return str(value)
