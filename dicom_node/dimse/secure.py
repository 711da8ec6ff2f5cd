"""TLS: the one place where settings become contexts, and errors words (PS3.15 B.12 and B.13).

Rules that bind here:
1. Nothing older than TLS 1.2; ephemeral keys and authenticated ciphers only.
2. A certificate that is asked for is checked: its authority, its dates, its name, and the revocation list
   where there is one. A list that has run out refuses everybody, and is told.
3. Files that change are read again before the next connection; if they are no good, the old ones stay in use.
"""

from __future__ import annotations

import datetime
import logging
import socket
import ssl
import stat
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from dicom_node import log, security
from dicom_node.config import Tls, TlsClients, TlsProfile
from dicom_node.dimse.tls_socket import TlsSocket
from dicom_node.errors import TlsError

_LOG = logging.getLogger(__name__)

#: cipher suites of TLS 1.2 by profile, best first; those of TLS 1.3 are OpenSSL's own three, all AEAD. Level
#: 2 asks for RSA keys of 2048 bits and curves of 224 (B.13 wants 256, and OpenSSL's default curves are).
SUITES = {
    TlsProfile.BCP195: (
        "ECDHE-ECDSA-AES256-GCM-SHA384",
        "ECDHE-RSA-AES256-GCM-SHA384",
        "ECDHE-ECDSA-AES128-GCM-SHA256",
        "ECDHE-RSA-AES128-GCM-SHA256",
    ),
    TlsProfile.MODIFIED: (
        "ECDHE-ECDSA-AES256-GCM-SHA384",
        "ECDHE-RSA-AES256-GCM-SHA384",
        "ECDHE-ECDSA-CHACHA20-POLY1305",
        "ECDHE-RSA-CHACHA20-POLY1305",
        "ECDHE-ECDSA-AES256-CCM",
        "ECDHE-ECDSA-AES128-GCM-SHA256",
        "ECDHE-RSA-AES128-GCM-SHA256",
        "ECDHE-ECDSA-AES128-CCM",
    ),
}
_LEVEL = "@SECLEVEL=2"
_ASKED = {
    TlsClients.REQUIRED: ssl.CERT_REQUIRED,
    TlsClients.OPTIONAL: ssl.CERT_OPTIONAL,
    TlsClients.NONE: ssl.CERT_NONE,
}
#: days before the end of a certificate or revocation list from which its end is told as a warning
SOON_DAYS = 30


# ---- contexts ----


def server_context(settings: Tls, clients: TlsClients) -> ssl.SSLContext:
    """What the TLS port shows, and what it asks of clients; TlsError names the file that is no good."""
    context = _bare(settings, ssl.PROTOCOL_TLS_SERVER)
    _show(context, settings)
    if clients is not TlsClients.NONE:
        _believe(context, settings)
    context.verify_mode = _ASKED[clients]
    # whoever resumed a session would not be checked again, against a list that has changed since
    context.num_tickets = 0
    context.options |= ssl.OP_NO_TICKET
    return context


def client_context(settings: Tls) -> ssl.SSLContext:
    """What this node shows to servers, if anything, and whom it believes. Raises TlsError, as above."""
    context = _bare(settings, ssl.PROTOCOL_TLS_CLIENT)
    if settings.certificate is not None:
        _show(context, settings)
    _believe(context, settings)
    return context


def _bare(settings: Tls, protocol: int) -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION | ssl.OP_CIPHER_SERVER_PREFERENCE
    context.set_ciphers(":".join((*SUITES[settings.profile], _LEVEL)))
    return context


def _show(context: ssl.SSLContext, settings: Tls) -> None:
    certificate, key = settings.certificate, settings.key
    if certificate is None or key is None:
        raise TlsError("tls.certificate and tls.key are missing; a TLS port needs them")
    _check_private(key)
    try:
        # an encrypted key would otherwise be asked for on the terminal
        context.load_cert_chain(certificate, key, password=_no_password)
    except OSError as error:
        raise TlsError(f"{_blamed(certificate, key)} cannot be used: {_why(error)}") from error


def _check_private(path: Path) -> None:
    """The key must be nobody else's business; a group that shares keys (Debian's ssl-cert) may read it."""
    try:
        mode = path.stat().st_mode
    except OSError as error:
        raise TlsError(f"{path} cannot be read: {error.strerror}") from error
    if mode & (stat.S_IRWXO | stat.S_IWGRP):
        raise TlsError(
            f"{path} is open to other users (mode {stat.S_IMODE(mode):04o}); run: chmod 600 {path}"
        )


def _no_password() -> str:
    raise TlsError("tls.key is encrypted; write it without a passphrase, readable by the service only")


def _blamed(certificate: Path, key: Path) -> str:
    """The file that is to blame, as far as one can tell."""
    for path in (certificate, key):
        if not path.is_file():
            return str(path)
    return f"{certificate} with {key}"


def _believe(context: ssl.SSLContext, settings: Tls) -> None:
    if settings.ca is None:
        raise TlsError("tls.ca is missing; it says whose certificates are believed")
    _load(context, settings.ca)
    # a certificate of a middle authority in the file is enough to believe what that one signed
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    if settings.crl is not None:
        _load(context, settings.crl)
        context.verify_flags |= ssl.VERIFY_CRL_CHECK_LEAF


def _load(context: ssl.SSLContext, path: Path) -> None:
    try:
        context.load_verify_locations(path)
    except OSError as error:
        raise TlsError(f"{path} cannot be used: {_why(error)}") from error


def _why(error: OSError) -> str:
    if isinstance(error, ssl.SSLError):
        return (getattr(error, "reason", None) or str(error)).replace("_", " ").lower()
    return error.strerror or type(error).__name__


# ---- contexts that follow their files ----


class Renewed:
    """A context that is made anew when one of its files has changed; for any thread.

    Parameters
    ----------
    settings : whose files are watched
    make : makes the context of them
    """

    def __init__(self, settings: Tls, make: Callable[[Tls], ssl.SSLContext]) -> None:
        self._settings = settings
        self._make = make
        self._lock = threading.Lock()
        self._seen = _state_of(settings)
        self._context = make(settings)

    def context(self) -> ssl.SSLContext:
        """The context of the files as they are now, or of the last good ones."""
        with self._lock:
            state = _state_of(self._settings)
            if state != self._seen:
                self._seen = state
                self._renew()
            return self._context

    def _renew(self) -> None:
        try:
            self._context = self._make(self._settings)
        except TlsError as error:
            log.event(_LOG, "tls-not-reloaded", level=logging.ERROR, error=error)
        else:
            log.event(_LOG, "tls-reloaded")
            tell_ends(self._settings)


def _files(settings: Tls) -> tuple[Path, ...]:
    named = (settings.certificate, settings.key, settings.ca, settings.crl)
    return tuple(path for path in named if path is not None)


def _state_of(settings: Tls) -> tuple[tuple[int, int, int] | None, ...]:
    def state(path: Path) -> tuple[int, int, int] | None:
        try:
            facts = path.stat()
        except OSError:
            return None
        return facts.st_ino, facts.st_size, facts.st_mtime_ns

    return tuple(state(path) for path in _files(settings))


def ends(settings: Tls) -> dict[str, datetime.datetime]:
    """`certificate`, `ca`, `crl` -> when the first thing in that file runs out (UTC); only what there is."""
    from cryptography import x509

    found: dict[str, datetime.datetime] = {}
    for name, path in (("certificate", settings.certificate), ("ca", settings.ca)):
        if path is not None:
            found[name] = min(
                each.not_valid_after_utc for each in x509.load_pem_x509_certificates(path.read_bytes())
            )
    if settings.crl is not None:
        lists = [x509.load_pem_x509_crl(part) for part in _crls(settings.crl.read_bytes())]
        dates = [each.next_update_utc for each in lists if each.next_update_utc is not None]
        if dates:
            found["crl"] = min(dates)
    return found


def _crls(text: bytes) -> list[bytes]:
    end = b"-----END X509 CRL-----"
    return [part + end for part in text.split(end) if b"-----BEGIN X509 CRL-----" in part]


def tell_ends(settings: Tls) -> None:
    """Say in the log when certificates and revocation lists run out; a warning for what does so soon."""
    try:
        found = ends(settings)
    except (OSError, ValueError) as error:
        log.event(_LOG, "tls-end-unknown", level=logging.WARNING, error=error)
        return
    now = datetime.datetime.now(datetime.UTC)
    for name, end in found.items():
        days = (end - now).days
        level = logging.WARNING if days < SOON_DAYS else logging.INFO
        log.event(_LOG, "tls-ends", level=level, tls=name, days=days)


# ---- connections ----


@dataclass(frozen=True, slots=True)
class Proof:
    """What a peer has proven of itself by its certificate: its names, and the SHA-256 of the whole."""

    names: frozenset[str] = frozenset()
    fingerprint: str = ""

    def has(self, name: str) -> bool:
        """Whether the certificate has a name, or is the one of a fingerprint (`sha256:HEX`)."""
        wanted = name.lower()
        return wanted in self.names or (wanted.startswith("sha256:") and wanted[7:] == self.fingerprint)


def proof_of(connection: object) -> Proof | None:
    """What the peer of a connection has proven; None in the clear, without names if it showed nothing."""
    if not isinstance(connection, TlsSocket):
        return None
    facts, encoded = connection.certificate()
    if not encoded:
        return Proof()
    # a name of a directory (DirName) is a tuple, and none that a configuration could name
    alternatives = facts.get("subjectAltName", ())
    names = {value.lower() for _kind, value in alternatives if isinstance(value, str)}
    if not names:  # RFC 6125 section 6.4.4: the common name only where there is no other
        names = {
            value.lower() for part in facts.get("subject", ()) for key, value in part if key == "commonName"
        }
    from cryptography.hazmat.primitives import hashes

    digest = hashes.Hash(hashes.SHA256())
    digest.update(encoded)
    return Proof(frozenset(names), digest.finalize().hex())


class SecuredPeer(Protocol):
    """What is asked of a peer of the configuration."""

    @property
    def host(self) -> str | None:
        """Name or address; None for a peer that is reached otherwise."""

    @property
    def tls(self) -> bool:
        """Whether it is spoken to over TLS."""

    @property
    def tls_name(self) -> str | None:
        """The name that its certificate must have, if not `host`."""


class Client:
    """Opens connections to one peer: over TLS, or in the clear if the peer is configured so.

    `arguments` is what pynetdicom's `AE.associate` takes; after an association that did not come about,
    `failure` says what TLS had against it.
    """

    def __init__(self, settings: Tls, peer: SecuredPeer) -> None:
        self._host = peer.host or ""
        self._name = peer.tls_name or self._host
        self._contexts = Renewed(settings, client_context) if peer.tls else None
        self._failure: OSError | None = None

    @property
    def arguments(self) -> tuple[Client, str] | None:
        """For the keyword `tls_args`."""
        self._failure = None
        return None if self._contexts is None else (self, self._name)

    def wrap_socket(self, raw: socket.socket, *, server_side: bool, server_hostname: str) -> TlsSocket:
        """Called by pynetdicom, as it would call that of an `ssl.SSLContext`, before it connects."""
        assert self._contexts is not None
        assert not server_side
        return TlsSocket.unconnected(raw, self._contexts.context(), server_hostname, self._failed)

    def _failed(self, error: OSError) -> None:
        self._failure = error
        if isinstance(error, ssl.SSLError):
            security.tell(security.Occurrence("peer-not-secure", reason_of(error)[0], peer=self._host))

    def failure(self) -> tuple[str, str] | None:
        """What TLS failed of since `arguments` was asked for, as a word and a sentence, if it did."""
        error = self._failure
        return None if error is None or not isinstance(error, ssl.SSLError) else reason_of(error)


#: OpenSSL's verify codes (x509_vfy.h) -> a word for log and metrics, and what the operator is told
_VERIFY: dict[int, tuple[str, str]] = {
    3: ("crl-missing", "tls.crl holds no list of the authority of this certificate; add it"),
    9: ("certificate-not-yet-valid", "its certificate is not valid yet; check both clocks"),
    10: ("certificate-expired", "its certificate has expired; it needs a new one"),
    11: ("crl-not-yet-valid", "the revocation list in tls.crl is not valid yet; check the clock"),
    12: ("crl-expired", "the revocation list in tls.crl has run out; fetch the new one"),
    18: ("certificate-unknown-issuer", "its certificate is its own authority, which tls.ca does not hold"),
    19: ("certificate-unknown-issuer", "nobody in tls.ca has signed its certificate"),
    20: ("certificate-unknown-issuer", "nobody in tls.ca has signed its certificate"),
    21: ("certificate-unknown-issuer", "nobody in tls.ca has signed its certificate"),
    23: ("certificate-revoked", "its certificate has been revoked"),
    62: ("certificate-other-name", "its certificate is of another name; set tls_name if that name is right"),
    64: ("certificate-other-name", "its certificate is of another address; set tls_name to a name in it"),
}
#: words in OpenSSL's reasons -> the same, in the order in which they are looked for
_REASONS: tuple[tuple[str, str, str], ...] = (
    ("NOT_RETURN_A_CERTIFICATE", "no-certificate", "it showed no certificate"),
    ("CERTIFICATE_REQUIRED", "own-certificate-refused", "it asks for a certificate; set tls.certificate"),
    ("ALERT_UNKNOWN_CA", "own-certificate-refused", "it does not believe tls.certificate"),
    ("ALERT_CERTIFICATE", "own-certificate-refused", "it does not accept tls.certificate"),
    ("ALERT_DECRYPT_ERROR", "own-certificate-refused", "it finds tls.certificate wrongly signed"),
    ("ALERT_BAD_CERTIFICATE", "own-certificate-refused", "it does not accept tls.certificate"),
    ("UNSUPPORTED_PROTOCOL", "tls-too-old", "it offers nothing newer than TLS 1.1"),
    ("PROTOCOL_VERSION", "tls-too-old", "it offers no version of TLS that both know"),
    ("VERSION_TOO_LOW", "tls-too-old", "it offers nothing newer than TLS 1.1"),
    ("NO_SHARED_CIPHER", "no-shared-cipher", "it offers no cipher suite of the profile"),
    ("HANDSHAKE_FAILURE", "no-shared-cipher", "it refuses what is offered: most likely every cipher suite"),
    ("KEY_TOO_SMALL", "certificate-weak", "its key is too short; RSA needs 2048 bits"),
    ("MD_TOO_WEAK", "certificate-weak", "its certificate is signed with a broken hash"),
    ("WRONG_VERSION_NUMBER", "no-tls", "it does not speak TLS on this port"),
    ("HTTP_REQUEST", "no-tls", "it does not speak TLS on this port"),
)


def reason_of(error: OSError) -> tuple[str, str]:
    """A word from a closed list, and a sentence for the operator, for whatever a handshake raised."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return _VERIFY.get(error.verify_code, ("certificate-refused", "its certificate cannot be believed"))
    if isinstance(error, TimeoutError):
        return "handshake-timeout", "it did not finish its handshake in time"
    if isinstance(error, ssl.SSLEOFError) or not isinstance(error, ssl.SSLError):
        return "hung-up", "it hung up in the middle of the handshake"
    said = str(getattr(error, "reason", None) or "")
    found = next(((word, text) for part, word, text in _REASONS if part in said), None)
    return found or ("handshake-failed", "the handshake failed")


#: every word that `reason_of` can give
WORDS = tuple(
    sorted(
        {word for word, _ in _VERIFY.values()}
        | {word for _, word, _ in _REASONS}
        | {"certificate-refused", "handshake-timeout", "hung-up", "handshake-failed"}
    )
)


class Door:
    """The handshakes of a TLS port, each within its time; the connection, or None for one that failed."""

    def __init__(self, settings: Tls, clients: TlsClients) -> None:
        self._contexts = Renewed(settings, lambda tls: server_context(tls, clients))
        tell_ends(settings)

    def shake(self, raw: socket.socket, address: Any, deadline_s: float) -> TlsSocket | None:
        """Shake hands with who has connected, in the thread of the connection."""
        connection: TlsSocket | None = None
        # another handle: what is left of a failed one is closed by whoever opened it
        handle = raw.dup()
        try:
            connection = TlsSocket.accept(handle, self._contexts.context(), deadline_s)
        except OSError as error:
            word = reason_of(error)[0]
            # load balancers connect and hang up; silence is no attempt at anything
            if word != "hung-up":
                security.tell(security.Occurrence("handshake-failed", word, peer=str(address[0])))
            return None
        finally:
            if connection is None:
                handle.close()
        return connection
