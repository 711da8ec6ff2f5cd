"""What can be told to the audit trail: one frozen class for each event of PS3.15 A.5.3 that the node knows.

Times are seconds since 1970-01-01 UTC. What identifies a patient is in `Study.patient_id` and in
`Queried.keys` alone; whether it leaves is decided where the message is made.
"""

from __future__ import annotations

import enum
from collections import Counter
from dataclasses import dataclass, replace

#: findings (`blessmark.Finding`) that say that an object is not what was marked, or that the key is not here
ALARMING = frozenset({"header-altered", "pixels-altered", "damaged", "wrong-key"})

#: SOP classes that a message names: no study has as many, and a message of any size is one that nobody takes
MOST_CLASSES = 100


class Outcome(enum.IntEnum):
    """How an event ended (Event Outcome Indicator, PS3.15 table A.5.2-1)."""

    SUCCESS = 0
    MINOR = 4  #: it is tried again
    SERIOUS = 8  #: it is not


class Action(enum.StrEnum):
    """What was done to the object of an event (Event Action Code)."""

    CREATE = "C"
    READ = "R"
    UPDATE = "U"
    DELETE = "D"


class Alert(enum.StrEnum):
    """What a security alert is about; each has its Event Type Code in `message`."""

    ASSOCIATION_REFUSED = "association-refused"  #: a peer that may not come in, by AE title, address or TLS
    NOT_AUTHENTIC = "not-authentic"  #: an object is not what was marked, or under a key that this ring lacks
    RE_IDENTIFIED = "re-identified"  #: patient data were taken out of a watermark
    KEYS_CHANGED = "keys-changed"  #: the key ring is another than before
    CONFIGURATION_CHANGED = "configuration-changed"  #: the configuration is another than before
    RECORDING_STOPPED = "recording-stopped"  #: the audit trail is full
    RECORDING_STARTED = "recording-started"  #: it is written again; the description says what was lost


@dataclass(frozen=True, slots=True)
class Party:
    """Who takes part: an AE title or a person's login, and the network address, "" if it is not known."""

    name: str
    address: str = ""


@dataclass(frozen=True, slots=True)
class Study:
    """A study and its patient; both are "" where an object does not tell."""

    uid: str = ""
    patient_id: str = ""


@dataclass(frozen=True, slots=True)
class Objects:
    """Instances of one study: how many of each SOP class; beyond `MOST_CLASSES` the rest is of ""."""

    study: Study
    #: SOP Class UID and number, each class once
    classes: tuple[tuple[str, int], ...] = ()
    #: they are, or become, free of what identifies the patient
    deidentified: bool = False

    def __add__(self, other: Objects) -> Objects:
        counts = Counter(dict(self.classes)) + Counter(dict(other.classes))
        if len(counts) > MOST_CLASSES:
            named = Counter({uid: number for uid, number in sorted(counts.items())[:MOST_CLASSES] if uid})
            counts = named + Counter({"": counts.total() - named.total()})
        return replace(self, classes=tuple(sorted(counts.items())))


@dataclass(frozen=True, slots=True)
class ApplicationStarted:
    """The node serves."""

    at: float


@dataclass(frozen=True, slots=True)
class ApplicationStopped:
    """The node has ended as it was told to."""

    at: float


@dataclass(frozen=True, slots=True)
class TransferBegun:
    """The first objects of a study go from `source` to `destination`."""

    at: float
    source: Party
    destination: Party
    objects: Objects


@dataclass(frozen=True, slots=True)
class Transferred:
    """Objects went from `source`, which asked for it, to `destination`, or did not arrive there."""

    at: float
    source: Party
    destination: Party
    objects: Objects
    action: Action = Action.CREATE
    outcome: Outcome = Outcome.SUCCESS
    why: str = ""


@dataclass(frozen=True, slots=True)
class Accessed:
    """Objects were looked into, changed or removed, by the node or, with `by`, by a person."""

    at: float
    action: Action
    objects: Objects
    outcome: Outcome = Outcome.SUCCESS
    why: str = ""
    by: Party | None = None


@dataclass(frozen=True, slots=True)
class Deleted:
    """A person decided that objects of a study go no further."""

    at: float
    by: Party
    objects: Objects


@dataclass(frozen=True, slots=True)
class Exported:
    """A person wrote objects to files outside the node."""

    at: float
    by: Party
    objects: Objects
    outcome: Outcome = Outcome.SUCCESS
    why: str = ""


@dataclass(frozen=True, slots=True)
class Imported:
    """A person had objects of an archive or of files come in."""

    at: float
    by: Party
    source: Party
    objects: Objects


@dataclass(frozen=True, slots=True)
class Queried:
    """A query went from `source` to `destination`; `keys` is the identifier as it was sent."""

    at: float
    source: Party
    destination: Party
    sop_class: str
    transfer_syntax: str
    keys: bytes
    outcome: Outcome = Outcome.SUCCESS
    why: str = ""


@dataclass(frozen=True, slots=True)
class SecurityAlert:
    """Something that whoever watches over security wants to know; `count` alike at once."""

    at: float
    alert: Alert
    what: str
    outcome: Outcome = Outcome.MINOR
    who: Party | None = None
    objects: Objects | None = None
    count: int = 1


@dataclass(frozen=True, slots=True)
class TrailUsed:
    """A person read the audit trail."""

    at: float
    by: Party


Event = (
    ApplicationStarted
    | ApplicationStopped
    | TransferBegun
    | Transferred
    | Accessed
    | Deleted
    | Exported
    | Imported
    | Queried
    | SecurityAlert
    | TrailUsed
)
