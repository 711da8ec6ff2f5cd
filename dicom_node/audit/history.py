"""Steps of the ledger as events of the audit trail; each tells of one object, `grouping` joins them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from dicom_node.audit.events import (
    ALARMING,
    Accessed,
    Action,
    Alert,
    Deleted,
    Event,
    Exported,
    Objects,
    Outcome,
    Party,
    SecurityAlert,
    Study,
    TransferBegun,
    Transferred,
)
from dicom_node.config import Config, Role, Uids
from dicom_node.jobs import DeliveryState, InstanceState
from dicom_node.ledger import Step

#: results of work that changed an object
_CHANGED = frozenset({"protected", "protected-header", "protected-whole-image", "rewritten", "recovered"})
#: what an operator decides is noted with this reason, and with his login behind it
OPERATOR = "operator"
_READY = InstanceState.READY
_ENDED_BADLY = {
    "held": Outcome.MINOR,
    "quarantined": Outcome.MINOR,
    "rejected": Outcome.SERIOUS,
    "passed-on-error": Outcome.SERIOUS,
}


@dataclass(frozen=True, slots=True)
class RouteFacts:
    """What the trail has to know of a route: what it does, and whether what leaves is another instance."""

    role: Role
    deidentifies: bool
    renames: bool


@dataclass(frozen=True, slots=True)
class Site:
    """The node, its destinations and its routes, as the trail names them."""

    node: Party
    destinations: Mapping[str, Party] = field(default_factory=dict)
    routes: Mapping[str, RouteFacts] = field(default_factory=dict)


def site_of(config: Config, host: str) -> Site:
    """The site that a configuration describes; `host` is the name of this machine."""
    return Site(
        Party(config.node.ae_title, host),
        {name: Party(peer.ae_title, peer.host) for name, peer in config.destinations.items()},
        {
            route.name: RouteFacts(
                route.role, route.deidentifies, route.deidentifies or route.uids is Uids.DERIVE
            )
            for route in config.routes
        },
    )


#: of a spool file: the study that it belongs to
StudyOf = Callable[[str], Study]


def told(step: Step, site: Site, study_of: StudyOf, address: str = "") -> Iterator[Event]:
    """The events that a step is told as; most are one, steps between queues are none.

    `address` is where the object came from, "" if that is not known any more.
    """
    if step.destination:
        yield from _of_delivery(step, site, study_of)
    elif step.what == InstanceState.RECEIVED:
        if not step.reason:  # else its bytes came back, or it is to be made again
            yield _received(step, site, study_of, address)
    elif step.what == "exported":
        yield Exported(step.at, operator(step.reason), _arrived(step, study_of))
    elif step.what == InstanceState.REJECTED and step.reason.startswith(OPERATOR):
        yield Deleted(step.at, operator(step.reason), _arrived(step, study_of))
    elif step.what in (_READY, InstanceState.HELD, InstanceState.REJECTED, InstanceState.QUARANTINED):
        yield from _worked_on(step, site, study_of)


def operator(reason: str) -> Party:
    """The person behind a step of the ledger."""
    return Party(reason.partition(" ")[2] or OPERATOR)


def _received(step: Step, site: Site, study_of: StudyOf, address: str) -> Transferred:
    node = Party(step.called_ae or site.node.name, site.node.address)
    action = Action.UPDATE if step.conflict else Action.CREATE
    return Transferred(step.at, Party(step.calling_ae, address), node, _arrived(step, study_of), action)


def _of_delivery(step: Step, site: Site, study_of: StudyOf) -> Iterator[Event]:
    if step.what == DeliveryState.DROPPED:
        yield Deleted(step.at, operator(step.reason), _leaving(step, site, study_of))
        return
    outcome = {
        DeliveryState.DELIVERED: Outcome.SUCCESS,
        "retry": Outcome.MINOR,
        DeliveryState.DEAD: Outcome.SERIOUS,
    }.get(step.what)
    if outcome is None:
        return
    name = step.via or step.destination
    to = site.destinations.get(name, Party(name))
    objects = _leaving(step, site, study_of)
    yield TransferBegun(step.at, site.node, to, objects)
    why = "" if outcome is Outcome.SUCCESS else step.reason
    yield Transferred(step.at, site.node, to, objects, Action.CREATE, outcome, why)


def _worked_on(step: Step, site: Site, study_of: StudyOf) -> Iterator[Event]:
    facts = site.routes.get(step.route, RouteFacts(Role.PASS, deidentifies=False, renames=False))
    result = step.what if step.what != _READY else step.result
    outcome = _ENDED_BADLY.get(result, Outcome.SUCCESS)
    objects = _arrived(step, study_of)
    if result in _CHANGED or result in _ENDED_BADLY or facts.role is Role.VERIFY:
        why = "" if outcome is Outcome.SUCCESS else step.reason
        yield Accessed(step.at, _action(facts), objects, outcome, why)
    if result == "recovered":
        what = "a patient record and an original image were taken out of a watermark"
        yield SecurityAlert(step.at, Alert.RE_IDENTIFIED, what, Outcome.SUCCESS, site.node, objects)
    if step.reason in ALARMING:
        what = f"the watermark says: {step.reason}"
        sender = Party(step.calling_ae)
        yield SecurityAlert(step.at, Alert.NOT_AUTHENTIC, what, Outcome.SERIOUS, sender, objects)


def _action(facts: RouteFacts) -> Action:
    if facts.role is Role.VERIFY:
        return Action.READ
    return Action.CREATE if facts.renames else Action.UPDATE


def _arrived(step: Step, study_of: StudyOf) -> Objects:
    return Objects(study_of(step.blob), ((step.sop_class_uid, 1),))


def _leaving(step: Step, site: Site, study_of: StudyOf) -> Objects:
    facts = site.routes.get(step.route)
    deidentified = facts is not None and facts.deidentifies
    return Objects(study_of(step.out_blob or step.blob), ((step.sop_class_uid, 1),), deidentified)
