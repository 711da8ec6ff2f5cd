"""The configuration: one YAML file, read once, checked whole, frozen, passed down.

`config/dicom-node.example.yaml` is the manual; `config/dicom-node.schema.json` is generated from here.

Rules that bind here:
1. A key is declared once, in the models below, with its default, its unit (in the name) and its range.
2. Every problem of a file is reported at once, with file, line and remedy; nothing is silently corrected.
3. Plain YAML guesses (`NO` is false, `0104` is 68, `12:30` is 750, the last duplicate key wins). Here a value
   that YAML would guess at is an error that says so.
"""

from __future__ import annotations

import difflib
import enum
import fnmatch
import json
import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    model_validator,
)

from dicom_node.errors import ConfigError
from dicom_node.windows import Window
from dicom_node.windows import parse as parse_window


class Role(enum.StrEnum):
    """What a route does to an instance."""

    PROTECT = "protect"  #: watermark it
    RECOVER = "recover"  #: remove the watermark and restore the original
    VERIFY = "verify"  #: judge it and pass it on unchanged
    #: hand it on unchanged
    PASS = "pass"  # noqa: S105


class OnUnprotectable(enum.StrEnum):
    """What happens to an image that has nothing to embed into."""

    HEADER = "header"  #: the sealed record travels in an encrypted private element
    WHOLE_IMAGE = "whole-image"  #: embed without a map, labelled as touching the whole image
    #: send it unprotected
    PASS = "pass"  # noqa: S105
    HOLD = "hold"  #: keep it until an operator decides
    REJECT = "reject"  #: drop it, keep the record


class CarrierName(enum.StrEnum):
    """How bits are put into pixels."""

    LATTICE = "lattice"  #: restored bit for bit
    DCT = "dct"  #: the paper's own method, restored approximately


class OnError(enum.StrEnum):
    """What happens to an instance whose processing failed."""

    HOLD = "hold"
    PASS = "pass"  # noqa: S105
    REJECT = "reject"


class Uids(enum.StrEnum):
    """What becomes of the UIDs of the objects of a route."""

    KEEP = "keep"  #: they stay; for a path on which the original goes no other way
    DERIVE = "derive"  #: new ones, the same wherever the key is; references follow


class Profile(enum.StrEnum):
    """How much of what identifies a patient is taken out of a header."""

    NONE = "none"
    BASIC = "basic"  #: Basic Application Level Confidentiality Profile, PS3.15 E.2


class Retain(enum.StrEnum):
    """Options of PS3.15 Annex E that leave something in a de-identified object."""

    UIDS = "uids"  #: E.3.9
    DEVICE = "device"  #: E.3.8
    INSTITUTION = "institution"  #: E.3.11
    PATIENT = "patient"  #: E.3.7, age, sex, size, weight ...


class Dates(enum.StrEnum):
    """What becomes of dates and times in a de-identified object (PS3.15 E.3.6)."""

    REMOVE = "remove"
    MODIFY = "modify"  #: moved back by a number of days that is the same for all objects of a patient
    RETAIN = "retain"


class Descriptors(enum.StrEnum):
    """What becomes of descriptions in a de-identified object (PS3.15 E.3.5)."""

    REMOVE = "remove"
    CLEAN = "clean"  #: the words that are terms of anatomy and imaging stay


class OnContent(enum.StrEnum):
    """What happens to an object whose content may identify the patient and cannot be cleaned."""

    HOLD = "hold"
    #: its header is de-identified, its content leaves as it is
    PASS = "pass"  # noqa: S105


class Transcode(enum.StrEnum):
    """What may be done to an object whose transfer syntax a destination does not take."""

    NEVER = "never"  #: nothing: it becomes a dead letter
    LOSSLESS = "lossless"  #: write the same samples and values in an uncompressed syntax that it takes


class Plain(enum.StrEnum):
    """The transfer syntaxes that an object may be converted to."""

    EXPLICIT = "explicit"  #: Explicit VR Little Endian
    IMPLICIT = "implicit"  #: Implicit VR Little Endian


class CalledAE(enum.StrEnum):
    """Which called AE titles an association may carry."""

    ANY = "any"
    OWN = "own"


class Promise(enum.StrEnum):
    """When the node commits to an instance that a peer asks about (PS3.4 annex J)."""

    DELIVERED = "delivered"  #: once every mandatory destination has it
    SPOOLED = "spooled"  #: once it is here


class Engine(enum.StrEnum):
    """What evaluates the networks; every one gives the same integers."""

    AUTO = "auto"
    TENSORFLOW = "tensorflow"
    JAX = "jax"
    TORCH = "torch"
    NUMPY = "numpy"


class Device(enum.StrEnum):
    """Where the networks are evaluated."""

    AUTO = "auto"
    CPU = "cpu"
    GPU = "gpu"


class LogFormat(enum.StrEnum):
    TEXT = "text"
    JSON = "json"


class LogLevel(enum.StrEnum):
    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


#: What the record carries unless told otherwise, the engine's `FULL_FIELDS`: keyword -> tag.
RECORD_FIELDS: Mapping[str, int] = {
    "PatientName": 0x00100010,
    "PatientID": 0x00100020,
    "PatientBirthDate": 0x00100030,
    "PatientSex": 0x00100040,
    "StudyDate": 0x00080020,
    "StudyTime": 0x00080030,
    "AccessionNumber": 0x00080050,
    "Modality": 0x00080060,
    "InstitutionName": 0x00080080,
    "ReferringPhysicianName": 0x00080090,
    "StudyInstanceUID": 0x0020000D,
    "SeriesInstanceUID": 0x0020000E,
    "SOPInstanceUID": 0x00080018,
}


def record_tag(keyword: str) -> int | None:
    """The tag of a DICOM keyword, or None; loads pydicom's dictionary only for an uncommon keyword."""
    if keyword in RECORD_FIELDS:
        return RECORD_FIELDS[keyword]
    from pydicom.datadict import tag_for_keyword

    tag = tag_for_keyword(keyword)
    return None if tag is None else int(tag)


def _known_keyword(keyword: str) -> str:
    if record_tag(keyword) is None:
        raise ValueError("not a keyword of the DICOM data dictionary (PS3.6), for example PatientID")
    return keyword


def _without_repeats(names: tuple[str, ...]) -> tuple[str, ...]:
    repeated = sorted(name for name, count in Counter(names).items() if count > 1)
    if repeated:
        raise ValueError(f"named twice: {', '.join(repeated)}")
    return names


def _anchored(path: Path, info: ValidationInfo) -> Path:
    """A relative path is relative to the file that names it, not to wherever the service was started."""
    return Path(info.context, path) if info.context else path


def _trimmed_ae(title: str) -> str:
    if title != title.strip(" "):
        raise ValueError("an AE title has no leading or trailing spaces (PS3.5 section 6.2)")
    return title


def _window(text: str) -> str:
    parse_window(text)
    return text


AETitle = Annotated[
    str, Field(min_length=1, max_length=16, pattern=r"^[ -\[\]-~]+$"), AfterValidator(_trimmed_ae)
]
Port = Annotated[int, Field(ge=1, le=65535)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,31}$")]
File = Annotated[Path, AfterValidator(_anchored)]
Keyword = Annotated[str, AfterValidator(_known_keyword)]
Pattern = Annotated[str, Field(min_length=1, max_length=64)]
SegmenterName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]*$")]
SafePrivate = Annotated[str, Field(pattern=r"^[0-9A-Fa-f]{3}[13579BDFbdf],xx[0-9A-Fa-f]{2},[^\\\\]{1,64}$")]
Names = Annotated[tuple[Name, ...], AfterValidator(_without_repeats)]
Hours = Annotated[str, AfterValidator(_window)]


class Section(BaseModel):
    """A block of the file: unknown keys are errors, types are strict, values are frozen."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Node(Section):
    """Who this node is and how it listens."""

    #: written into every watermark
    id: str = Field(pattern=r"^[A-Za-z0-9._-]{1,16}$")
    ae_title: AETitle
    bind: str = Field(default="0.0.0.0", min_length=1)  # noqa: S104 - a store-and-forward node is there to be reached
    port: Port = 11112
    max_associations: int = Field(default=50, ge=1, le=1000)
    #: of one calling AE title at one address; a sender that runs wild leaves room for the others
    max_associations_per_peer: int = Field(default=20, ge=1, le=1000)
    #: seconds for which an association may be open with nothing on its way; 60 is what dcm4che allows, twice
    #: what Orthanc does: a modality that pauses for longer opens another
    idle_s: float = Field(default=60.0, ge=1.0, le=86400.0)
    #: seconds that a PDU may take to arrive, an object pause on its way, and an answer wait to be taken
    stall_s: float = Field(default=30.0, ge=1.0, le=3600.0)
    #: bytes; never 0 ("unlimited"): a peer may then claim 4 GiB
    max_pdu: int = Field(default=131072, ge=4096, le=1048576)
    accept_called_ae: CalledAE = CalledAE.ANY


class Storage(Section):
    """Where objects and their states are kept."""

    folder: File
    #: below this much free space new objects are refused with A700
    reserve_mb: int = Field(default=256, ge=16)
    #: seconds for which the bytes of an object stay at least; they go when it is delivered everywhere
    keep_s: float = Field(default=86400.0, ge=3600.0)
    #: days for which a finished object can be traced, and its repetition is known for one
    history_days: int = Field(default=30, ge=1, le=3650)

    @property
    def spool_dir(self) -> Path:
        """Folder of the objects' bytes."""
        return self.folder / "spool"

    @property
    def ledger_path(self) -> Path:
        """The database that holds the state of every job."""
        return self.folder / "ledger.sqlite"

    @property
    def reserve_bytes(self) -> int:
        """`reserve_mb` in bytes."""
        return self.reserve_mb * 1_000_000


class Keys(Section):
    """The secrets."""

    ring: File = Path("/etc/dicom-node/keyring")


class SegmenterRule(Section):
    """Images whose region of interest another segmenter draws; every condition that is given must hold."""

    use: SegmenterName
    #: values of Modality (0008,0060)
    modality: tuple[str, ...] = ()
    #: values of SOP Class UID (0008,0016)
    sop_class: tuple[str, ...] = ()
    #: values of Body Part Examined (0018,0015)
    body_part: tuple[str, ...] = ()
    #: whether the image has three samples per pixel; null is either
    colour: bool | None = None

    def fits(self, modality: str, sop_class: str, body_part: str, *, colour: bool) -> bool:
        """Whether an image with these attributes is meant."""
        wanted = ((self.modality, modality), (self.sop_class, sop_class), (self.body_part, body_part))
        return all(not values or value in values for values, value in wanted) and self.colour in (
            None,
            colour,
        )


class Dct(Section):
    """How the carrier `dct` embeds; readers find these by themselves."""

    #: side of a block, pixels; the smaller, the more room
    block_px: Literal[6, 8, 10] = 6
    #: by how much one coefficient exceeds the other, share of full scale (over 8 bits: of the range in use)
    threshold: float = Field(default=0.01, ge=0.005, le=0.05)
    #: what finds altered blocks again when restoring
    detector: Literal["context", "paper"] = "context"


class Watermark(Section):
    """What is hidden and how strongly."""

    carrier: CarrierName = CarrierName.LATTICE
    dct: Dct = Dct()
    segmenter: SegmenterName = "anatomy"
    #: the first that fits an image takes the place of `segmenter`
    segmenter_rules: tuple[SegmenterRule, ...] = (
        SegmenterRule(use="vessels", modality=("OP",), colour=True),
    )
    record: Annotated[tuple[Keyword, ...], Field(min_length=1), AfterValidator(_without_repeats)] = tuple(
        RECORD_FIELDS
    )
    #: most that a sample may move, in grey levels; auto is 1 % of the range in use
    max_change: Literal["auto"] | Annotated[int, Field(ge=1, le=65535)] = "auto"


class Networks(Section):
    """What evaluates the networks among the segmenters; the maps do not depend on it."""

    #: auto is TensorFlow where it is installed, NumPy elsewhere
    engine: Engine = Engine.AUTO
    #: auto leaves it to the engine
    device: Device = Device.AUTO
    #: take GPU memory as needed, not all of it at once, so that several workers share one card (TensorFlow)
    memory_growth: bool = True
    #: CPU threads of one worker's TensorFlow; the workers share the cores
    threads: int = Field(default=1, ge=1, le=64)
    #: most frames whose maps are drawn together; none waits for others to arrive
    batch_frames: int = Field(default=16, ge=1, le=1024)
    #: cells of 2 x 2 pixels that go through a network at once; bounds its memory, larger images go in strips
    batch_cells: int = Field(default=131072, ge=16384, le=67108864)


class Workers(Section):
    """The processes that protect and recover."""

    #: auto is one per CPU core
    count: Literal["auto"] | Annotated[int, Field(ge=1, le=256)] = "auto"
    #: seconds after which a silent worker's instances go to another
    lease_s: float = Field(default=300.0, ge=5.0, le=86400.0)


class RetryPolicy(Section):
    """How a destination is tried again."""

    first_s: float = Field(default=5.0, gt=0.0, le=86400.0)
    factor: float = Field(default=2.0, ge=1.0, le=10.0)
    cap_s: float = Field(default=900.0, gt=0.0, le=86400.0)
    #: share of the delay by which it is spread, so that a returning archive is not stormed
    jitter: float = Field(default=0.2, ge=0.0, le=0.9)
    #: attempts after which a silent or busy destination is given up; null is never
    give_up_after: Annotated[int, Field(ge=1)] | None = None
    #: attempts after which an object that the destination refuses becomes a dead letter
    refusals: int = Field(default=3, ge=1)

    @model_validator(mode="after")
    def _cap_above_first(self) -> Self:
        if self.cap_s < self.first_s:
            raise ValueError("cap_s is below first_s; the cap is the longest delay")
        return self


class Destination(Section):
    """A peer that objects are sent to."""

    ae_title: AETitle
    host: str = Field(min_length=1)
    port: Port
    associations: int = Field(default=2, ge=1, le=4)
    timeout_s: float = Field(default=30.0, gt=0.0, le=3600.0)
    transcode: Transcode = Transcode.LOSSLESS
    #: what to convert to, best first; big endian is retired, and a compressed syntax could be refused as well
    transcode_to: Annotated[tuple[Plain, ...], Field(min_length=1), AfterValidator(_without_repeats)] = (
        Plain.EXPLICIT,
        Plain.IMPLICIT,
    )
    #: hours of the day, local time, outside which its queue waits; none is always
    windows: Annotated[tuple[Hours, ...], AfterValidator(_without_repeats)] = ()
    #: the destination that takes its deliveries while it is down; null is none
    failover: Name | None = None
    #: seconds for which it must have been down before
    failover_after_s: float = Field(default=600.0, ge=0.0, le=604800.0)
    retry: RetryPolicy = RetryPolicy()
    #: whether the node waits for it before it commits to an instance
    mandatory: bool = True
    #: whether it is asked to commit to what it was sent; until it does, the bytes stay here
    commitment: bool = False

    @property
    def open_hours(self) -> tuple[Window, ...]:
        """`windows`, understood."""
        return tuple(parse_window(text) for text in self.windows)


class Match(Section):
    """Which associations a route takes; patterns as in a shell, case counts."""

    calling_ae: Annotated[tuple[Pattern, ...], Field(min_length=1)] = ("*",)
    called_ae: Annotated[tuple[Pattern, ...], Field(min_length=1)] = ("*",)

    def takes(self, calling_ae: str, called_ae: str) -> bool:
        """Whether both AE titles match."""
        return _fits(calling_ae, self.calling_ae) and _fits(called_ae, self.called_ae)


class Deidentify(Section):
    """A confidentiality profile (PS3.15 Annex E) and its options."""

    profile: Profile = Profile.NONE
    retain: Annotated[tuple[Retain, ...], AfterValidator(_without_repeats)] = ()
    dates: Dates = Dates.REMOVE
    descriptors: Descriptors = Descriptors.REMOVE
    #: private attributes that are known to be safe, `gggg,xxee,CREATOR` (PS3.15 E.3.10)
    safe_private: tuple[SafePrivate, ...] = ()
    on_content: OnContent = OnContent.HOLD


class Route(Section):
    """What happens to the objects of matching associations."""

    name: Name
    match: Match = Match()
    role: Role
    destinations: Names = ()
    uids: Uids = Uids.KEEP
    deidentify: Deidentify = Deidentify()
    #: deliveries of a higher one are sent first, wherever they go
    priority: int = Field(default=0, ge=-100, le=100)
    #: in place of `watermark.carrier`; null keeps that
    carrier: CarrierName | None = None
    on_unprotectable: OnUnprotectable = OnUnprotectable.HEADER
    on_error: OnError = OnError.HOLD

    @property
    def deidentifies(self) -> bool:
        """Whether objects of this route leave without what identifies the patient."""
        return self.deidentify.profile is not Profile.NONE

    @model_validator(mode="after")
    def _header_is_changed_by_protect_only(self) -> Self:
        changes = self.uids is Uids.DERIVE or self.deidentifies
        if self.role is not Role.PROTECT and changes:
            raise ValueError(f"uids and deidentify belong to the role protect, not to {self.role}")
        return self

    @model_validator(mode="after")
    def _nothing_identified_slips_through(self) -> Self:
        if self.deidentifies and self.on_error is OnError.PASS:
            raise ValueError("on_error: pass would send identified objects on a route that de-identifies")
        return self


class Requester(Section):
    """A peer that may ask for storage commitment, and where its answer goes."""

    ae_title: AETitle
    host: str = Field(min_length=1)
    port: Port
    timeout_s: float = Field(default=30.0, gt=0.0, le=3600.0)


class ReportPolicy(RetryPolicy):
    """How a peer is tried again that is owed an answer about storage commitment."""

    #: attempts after which a silent or busy peer is given up, about ten days; it may ask again
    give_up_after: Annotated[int, Field(ge=1)] | None = 1000


class Asking(Section):
    """How destinations with `commitment` are asked."""

    #: instances in one request; an answer names all of them in one data set
    batch: int = Field(default=500, ge=1, le=10000)
    #: seconds for which a request waits for more instances
    collect_s: float = Field(default=10.0, ge=0.0, le=86400.0)
    #: seconds after which an answer is overdue and the request is made again, under a new Transaction UID
    answer_s: float = Field(default=3600.0, ge=1.0, le=604800.0)
    #: seconds for which the association stays open, for peers that answer on the same one
    linger_s: float = Field(default=10.0, ge=0.0, le=3600.0)
    #: times that an instance is sent or asked for again after a refusal before it is a dead letter
    refusals: int = Field(default=3, ge=0, le=100)


def _without_repeated_titles(peers: tuple[Requester, ...]) -> tuple[Requester, ...]:
    _without_repeats(tuple(peer.ae_title for peer in peers))
    return peers


class Commitment(Section):
    """Storage commitment, given to peers and asked of destinations."""

    promise: Promise = Promise.DELIVERED
    #: seconds for which an answer waits for instances that are still under way
    wait_s: float = Field(default=3600.0, ge=0.0, le=604800.0)
    requesters: Annotated[tuple[Requester, ...], AfterValidator(_without_repeated_titles)] = ()
    #: whether the association of the request may carry the answer when no other can be had
    same_association: bool = False
    retry: ReportPolicy = ReportPolicy()
    ask: Asking = Asking()


class Http(Section):
    """The endpoint for metrics and health."""

    bind: str = Field(default="127.0.0.1", min_length=1)
    #: null switches it off
    port: Port | None = 8080


class Log(Section):
    """How the node tells what it does, on standard error."""

    format: LogFormat = LogFormat.TEXT
    level: LogLevel = LogLevel.INFO


class Config(Section):
    """The whole file, in the order in which an image travels."""

    node: Node
    storage: Storage
    keys: Keys = Keys()
    watermark: Watermark = Watermark()
    networks: Networks = Networks()
    workers: Workers = Workers()
    destinations: Mapping[Name, Destination] = Field(default_factory=dict)
    routes: Annotated[tuple[Route, ...], Field(min_length=1)]
    commitment: Commitment = Commitment()
    http: Http = Http()
    log: Log = Log()

    def route_for(self, calling_ae: str, called_ae: str) -> Route | None:
        """The first route that takes this association, or None: refuse it."""
        return next((route for route in self.routes if route.match.takes(calling_ae, called_ae)), None)

    def answers_commitment(self, calling_ae: str) -> bool:
        """Whether this is the AE title of a destination that is asked for storage commitment."""
        return any(
            peer.commitment and peer.ae_title == calling_ae.strip(" ") for peer in self.destinations.values()
        )

    def requester(self, ae_title: str) -> Requester | None:
        """Where an answer to this AE title goes: as configured, else to the destination of that title."""
        listed = next((peer for peer in self.commitment.requesters if peer.ae_title == ae_title), None)
        if listed is not None:
            return listed
        same = next((peer for peer in self.destinations.values() if peer.ae_title == ae_title), None)
        if same is None:
            return None
        return Requester(ae_title=ae_title, host=same.host, port=same.port, timeout_s=same.timeout_s)

    def is_mandatory(self, destination: str) -> bool:
        """Whether an instance is not safe before this destination has it; one that is gone counts as such."""
        peer = self.destinations.get(destination)
        return peer is None or peer.mandatory

    def route(self, name: str) -> Route | None:
        """The route of this name, or None if the file no longer has it."""
        return next((route for route in self.routes if route.name == name), None)


def _fits(title: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatch.fnmatchcase(title.strip(" "), pattern) for pattern in patterns)


def load(path: Path) -> Config:
    """Read and check a configuration file.

    Raises
    ------
    ConfigError : with every problem of the file, each with its line and what to write instead
    """
    try:
        text = path.read_text("utf-8")
    except OSError as error:
        raise ConfigError((f"{path}: cannot be read: {error.strerror}",)) from error
    except UnicodeDecodeError as error:
        raise ConfigError((f"{path}: is not UTF-8 text",)) from error
    return parse(text, path)


def parse(text: str, path: Path) -> Config:
    """Check the text of a configuration file; `path` is where it came from. Raises ConfigError."""
    document = _Document(path)
    try:
        root = yaml.compose(text, yaml.SafeLoader)
    except yaml.YAMLError as error:
        raise ConfigError((_syntax_problem(path, error),)) from error
    data = document.value(root, ()) if root is not None else {}
    config = _validated(data, document)
    _check_references(data, document)
    if document.problems or config is None:
        raise ConfigError(document.messages())
    return config


def json_schema() -> str:
    """The JSON schema of the file, for editors; what `config/dicom-node.schema.json` holds."""
    schema = Config.model_json_schema()
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    return json.dumps(schema, indent=2, sort_keys=True) + "\n"


Place = tuple[str | int, ...]

_PLAIN_INT = re.compile(r"-?(0|[1-9][0-9]*)")
_PLAIN_FLOAT = re.compile(r"-?(0|[1-9][0-9]*)\.[0-9]+")
_TAG = "tag:yaml.org,2002:"


class _Document:
    """The values of a YAML text with the line of each, and the problems found so far."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lines: dict[Place, int] = {}
        self.problems: dict[Place, list[str]] = {}
        self._seen: set[int] = set()

    def problem(self, place: Place, message: str) -> None:
        """Note a problem; a place may have several, but each only once."""
        messages = self.problems.setdefault(place, [])
        if message not in messages:
            messages.append(message)

    def messages(self) -> tuple[str, ...]:
        """Every problem as `file:line: key: what is wrong`, in the order of the file."""
        found = [(self.line(place), place, " or ".join(said)) for place, said in self.problems.items()]
        found.sort(key=lambda problem: problem[0])
        return tuple(f"{self.path}:{line}: {_dotted(place)}: {said}" for line, place, said in found)

    def line(self, place: Place) -> int:
        """The line of a place, or of the nearest thing around it that is written down."""
        return next(
            (self.lines[place[:end]] for end in range(len(place), -1, -1) if place[:end] in self.lines), 1
        )

    def value(self, node: yaml.Node, place: Place) -> Any:
        """The plain value of a node; what YAML would guess at becomes a problem."""
        self.lines.setdefault(place, node.start_mark.line + 1)
        if id(node) in self._seen:
            self.problem(place, "anchors and aliases are not supported; write the value out")
            return None
        self._seen.add(id(node))
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, place)
        if isinstance(node, yaml.SequenceNode):
            return [self.value(item, (*place, index)) for index, item in enumerate(node.value)]
        return self._scalar(node, place)

    def _mapping(self, node: yaml.MappingNode, place: Place) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key = str(key_node.value) if isinstance(key_node, yaml.ScalarNode) else "?"
            inner = (*place, key)
            line = key_node.start_mark.line + 1
            if key in values:
                self.problem(
                    inner, f"is there twice, first on line {self.lines[inner]}, again on line {line}"
                )
                continue
            self.lines[inner] = line
            if key_node.tag != f"{_TAG}str":
                self.problem(inner, f"a key must be plain text; quote it: '{key}'")
            values[key] = self.value(value_node, inner)
        return values

    def _scalar(self, node: yaml.Node, place: Place) -> Any:
        text, kind = str(node.value), str(node.tag).removeprefix(_TAG)
        if kind == "str":
            return text
        if kind == "null" and text in ("", "~", "null"):
            return None
        if kind == "bool" and text in ("true", "false"):
            return text == "true"
        if kind == "int" and _PLAIN_INT.fullmatch(text):
            return int(text)
        if kind == "float" and _PLAIN_FLOAT.fullmatch(text):
            return float(text)
        self.problem(place, f"YAML reads {text} as {_guess(kind)}; if text is meant, quote it: '{text}'")
        return text


def _guess(kind: str) -> str:
    """What plain YAML would make of a value, in words."""
    words = {
        "bool": "true or false",
        "int": "a number in another base",
        "float": "a number in an unusual form",
        "null": "nothing",
        "timestamp": "a date",
    }
    return words.get(kind, f"a {kind}")


def _syntax_problem(path: Path, error: yaml.YAMLError) -> str:
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        said = ", ".join(part for part in (error.context, error.problem) if part)
        return f"{path}:{error.problem_mark.line + 1}: {said}"
    return f"{path}: is not YAML: {error}"


def _validated(data: Any, document: _Document) -> Config | None:
    # JSON mode is strict about values, yet takes paths, tuples and words of an enumeration from their only
    # spelling; Python's strict mode would want the objects themselves.
    try:
        return Config.model_validate_json(json.dumps(data), context=document.path.parent)
    except ValidationError as error:
        unreadable = set(document.problems)
        for found in error.errors(include_url=False, include_context=False):
            place = _written_place(found["loc"], document, missing=found["type"] == "missing")
            if place not in unreadable:
                document.problem(place, _said(found["type"], found["msg"], found["input"], place))
        return None


def _written_place(location: Place, document: _Document, *, missing: bool) -> Place:
    """Where in the file an error belongs: a union adds the name of its variant, which nobody wrote."""
    if missing or location in document.lines:
        return location
    return location[:-1]


def _said(kind: str, message: str, given: Any, place: Place) -> str:
    if kind == "missing":
        return "is missing"
    if kind == "extra_forbidden":
        return f"is unknown here{_nearest(str(place[-1]))}"
    plain = message.removeprefix("Value error, ").removeprefix("Input ")
    return plain if isinstance(given, dict | list) else f"{plain}, not {json.dumps(given)}"


def _nearest(key: str) -> str:
    """A suggestion, if some key of the file is spelled much like this one."""
    known = [name for section in Section.__subclasses__() for name in section.model_fields]
    near = difflib.get_close_matches(key, known, n=1)
    return f"; did you mean {near[0]}?" if near else f"; the sections are {', '.join(Config.model_fields)}"


def _check_references(data: Any, document: _Document) -> None:
    """What no single section can see; reads the raw data, so that it is reported beside everything else."""
    known = _dict(_dict(data).get("destinations"))
    names: dict[str, int] = {}
    catch_all: str | None = None
    for index, route in enumerate(_list(_dict(data).get("routes"))):
        place: Place = ("routes", index)
        name = str(_dict(route).get("name"))
        if names.setdefault(name, index) != index:
            document.problem((*place, "name"), f"another route is called {name} already")
        if catch_all is not None:
            document.problem(
                (*place, "match"), f"is never reached: route {catch_all} takes everything before it"
            )
        if _takes_everything(_dict(route)):
            catch_all = name
        _check_destinations(_dict(route), place, known, document)
    _check_failover(known, document)


def _check_destinations(
    route: Mapping[str, Any], place: Place, known: Mapping[str, Any], document: _Document
) -> None:
    wanted = _list(route.get("destinations"))
    for index, name in enumerate(wanted):
        if name not in known:
            document.problem((*place, "destinations", index), f"there is no destination {name}")
        other = _dict(known.get(name)).get("failover")
        if other is not None and other in wanted:
            said = f"{other} is the fail-over of {name}; on one route it would get the same object twice"
            document.problem((*place, "destinations", index), said)
    if not wanted and route.get("role") in (Role.PROTECT, Role.RECOVER, Role.PASS):
        document.problem((*place, "destinations"), f"the role {route['role']} needs at least one")


def _check_failover(destinations: Mapping[str, Any], document: _Document) -> None:
    for name, destination in destinations.items():
        other, place = _dict(destination).get("failover"), ("destinations", name, "failover")
        if not isinstance(other, str):
            continue
        if other == name:
            document.problem(place, "is the destination itself; name another one")
        elif other not in destinations:
            document.problem(place, f"there is no destination {other}")


def _takes_everything(route: Mapping[str, Any]) -> bool:
    match = _dict(route.get("match"))
    return all("*" in _list(match.get(side, ["*"])) for side in ("calling_ae", "called_ae"))


def _dict(data: Any) -> Mapping[str, Any]:
    return data if isinstance(data, dict) else {}


def _list(data: Any) -> list[Any]:
    return data if isinstance(data, list) else []


def _dotted(place: Place) -> str:
    """`("routes", 0, "role")` as `routes[0].role`."""
    words = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in place)
    return words.removeprefix(".") or "the file"
