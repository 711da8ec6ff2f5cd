"""What no single section can see: names that lead nowhere, routes that nothing reaches, TLS without keys."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dicom_node.config.document import Document, Place
from dicom_node.config.words import AuditTransport, Role, TlsClients


def check_references(data: Any, document: Document) -> None:
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
    _check_listening(_dict(data), document)
    _check_tls(_dict(data), document)
    _check_peers(_dict(_dict(data).get("query")), known, document)
    _check_signing(_dict(data), document)


def _check_signing(data: Mapping[str, Any], document: Document) -> None:
    """Who signs needs a key to sign with."""
    if _dict(data.get("keys")).get("signing") is not None:
        return
    said = "needs keys.signing; make the file with: dicom-node keys new-signing"
    if _dict(data.get("watermark")).get("sign") is True:
        document.problem(("watermark", "sign"), said)
    for index, route in enumerate(_list(data.get("routes"))):
        if _dict(route).get("sign") is True:
            document.problem(("routes", index, "sign"), said)


def _check_destinations(
    route: Mapping[str, Any], place: Place, known: Mapping[str, Any], document: Document
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


def _check_failover(destinations: Mapping[str, Any], document: Document) -> None:
    for name, destination in destinations.items():
        other, place = _dict(destination).get("failover"), ("destinations", name, "failover")
        if not isinstance(other, str):
            continue
        if other == name:
            document.problem(place, "is the destination itself; name another one")
        elif other not in destinations:
            document.problem(place, f"there is no destination {other}")


def _check_listening(data: Mapping[str, Any], document: Document) -> None:
    """Ports that nobody could use, and conditions that nobody could meet."""
    node, tls, access = (_dict(data.get(name)) for name in ("node", "tls", "access"))
    secure, clients = node.get("tls_port") is not None, node.get("tls_clients", TlsClients.REQUIRED)
    if node.get("port", 0) is None and not secure:
        document.problem(("node", "port"), "is null and so is tls_port: nobody could reach the node")
    if secure and node.get("tls_port") == node.get("port", 11112):
        document.problem(("node", "tls_port"), "is the port in the clear as well; 2762 is registered for TLS")
    if secure and tls.get("certificate") is None:
        document.problem(("node", "tls_port"), "needs tls.certificate and tls.key")
    if secure and clients != TlsClients.NONE and tls.get("ca") is None:
        document.problem(("node", "tls_port"), "needs tls.ca, which says whose certificates are believed")
    for index, caller in enumerate(_list(access.get("callers"))):
        place: Place = ("access", "callers", index)
        if _dict(caller).get("certificates") and (not secure or clients == TlsClients.NONE):
            said = "needs node.tls_port with tls_clients: required or optional; nobody shows a certificate"
            document.problem((*place, "certificates"), said)
        if _dict(caller).get("users") and access.get("users") is None:
            document.problem((*place, "users"), "needs access.users, the file with their passcodes")


def _check_tls(data: Mapping[str, Any], document: Document) -> None:
    """Peers over TLS of which nothing could be believed."""
    if _dict(data.get("tls")).get("ca") is not None:
        return
    audit = _dict(data.get("audit"))
    if audit.get("host") is not None and audit.get("transport", AuditTransport.TLS) == AuditTransport.TLS:
        document.problem(("audit", "host"), "is spoken to over TLS; needs tls.ca, or another audit.transport")
    requesters = _list(_dict(data.get("commitment")).get("requesters"))
    peers: list[tuple[Place, Any]] = [
        *((("destinations", name), peer) for name, peer in _dict(data.get("destinations")).items()),
        *(
            (("query", "peers", name), peer)
            for name, peer in _dict(_dict(data.get("query")).get("peers")).items()
        ),
        *((("commitment", "requesters", index), peer) for index, peer in enumerate(requesters)),
    ]
    for place, peer in peers:
        if _dict(peer).get("tls") is True:
            document.problem((*place, "tls"), "needs tls.ca, which says whose certificates are believed")


def _check_peers(query: Mapping[str, Any], destinations: Mapping[str, Any], document: Document) -> None:
    for name, peer in _dict(query.get("peers")).items():
        stated = {key for key, value in _dict(peer).items() if value is not None}
        if name not in destinations and not stated & {"ae_title", "host", "port", "dicomweb"}:
            said = "has no address, and there is no destination of this name; give ae_title, host and port,"
            document.problem(("query", "peers", name), f"{said} or dicomweb")


def _takes_everything(route: Mapping[str, Any]) -> bool:
    match = _dict(route.get("match"))
    return all("*" in _list(match.get(side, ["*"])) for side in ("calling_ae", "called_ae"))


def _dict(data: Any) -> Mapping[str, Any]:
    return data if isinstance(data, dict) else {}


def _list(data: Any) -> list[Any]:
    return data if isinstance(data, list) else []
