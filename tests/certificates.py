"""A certificate authority for tests: small keys that OpenSSL still takes, made in milliseconds."""

from __future__ import annotations

import datetime
import ipaddress
from dataclasses import dataclass, field
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
_DAY = datetime.timedelta(days=1)


@dataclass(frozen=True)
class Issued:
    """A certificate and its key, in files."""

    certificate: Path
    key: Path
    content: x509.Certificate
    private: Key


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _alternative(name: str) -> x509.GeneralName:
    if name.startswith("dir:"):
        return x509.DirectoryName(_name(name[4:]))
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


@dataclass
class Authority:
    """An authority that signs in `folder`."""

    folder: Path
    name: str = "Test CA"
    rsa_keys: bool = False
    revoked: list[x509.Certificate] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.key = self._new_key()
        self.certificate = (
            self._builder(self.name, self.key, 30)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .sign(self.key, SHA256())
        )
        self.file = self.folder / "ca.pem"
        self.file.write_bytes(self.certificate.public_bytes(Encoding.PEM))

    def issue(self, name: str, *names: str, days: float = 30) -> Issued:
        """A certificate for `names` (DNS, addresses, `dir:NAME`); of the past, if `days` is below 0."""
        key = self._new_key()
        builder = self._builder(name, key, days)
        if names:
            builder = builder.add_extension(
                x509.SubjectAlternativeName([_alternative(each) for each in names]), critical=False
            )
        made = builder.sign(self.key, SHA256())
        issued = Issued(self.folder / f"{name}.pem", self.folder / f"{name}.key", made, key)
        issued.certificate.write_bytes(made.public_bytes(Encoding.PEM))
        issued.key.write_bytes(
            key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())
        )
        issued.key.chmod(0o600)
        return issued

    def crl(self, *revoked: Issued, days: float = 7) -> Path:
        """The revocation list, with these added to it; run out, if `days` is below 0."""
        self.revoked += [issued.content for issued in revoked]
        began = _now() - 10 * _DAY
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(self.certificate.subject)
            .last_update(began)
            .next_update(_now() + days * _DAY)
        )
        for each in self.revoked:
            builder = builder.add_revoked_certificate(
                x509.RevokedCertificateBuilder()
                .serial_number(each.serial_number)
                .revocation_date(began)
                .build()
            )
        path = self.folder / "crl.pem"
        path.write_bytes(builder.sign(self.key, SHA256()).public_bytes(Encoding.PEM))
        return path

    def _new_key(self) -> Key:
        if self.rsa_keys:
            return rsa.generate_private_key(public_exponent=65537, key_size=2048)
        return ec.generate_private_key(ec.SECP256R1())

    def _builder(self, name: str, key: Key, days: float) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .subject_name(_name(name))
            .issuer_name(_name(self.name))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(_now() - 10 * _DAY)
            .not_valid_after(_now() + days * _DAY)
        )
