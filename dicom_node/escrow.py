"""A key ring for a safe, or for another machine: encrypted to whoever holds a certificate's private key.

The format is CMS EnvelopedData (RFC 5652), so that a hospital can open it without this program, in ten years:

    openssl cms -decrypt -inform PEM -in ring.p7m -inkey recipient.key
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey
from cryptography.hazmat.primitives.ciphers.algorithms import AES256
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key, pkcs7

from dicom_node.errors import KeyFileError

_BEGIN = b"-----BEGIN PKCS7-----"
_SUM = re.compile(r"# sha256 (?P<sum>[0-9a-f]{64})\n")


def sealed(text: str, recipient: Path) -> bytes:
    """A ring's text as PEM that only the holder of the recipient's RSA key can open.

    Its first line is the SHA-256 of the rest, for the cipher (AES-256-CBC) does not show damage by itself.

    Raises KeyFileError when the certificate cannot be used.
    """
    try:
        certificate = x509.load_pem_x509_certificate(recipient.read_bytes())
    except OSError as error:
        raise KeyFileError(f"{recipient} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise KeyFileError(f"{recipient} is no certificate in PEM form") from error
    if not isinstance(certificate.public_key(), RSAPublicKey):
        raise KeyFileError(f"{recipient} is no RSA certificate; only RSA keys can be encrypted to")
    content = f"# sha256 {hashlib.sha256(text.encode()).hexdigest()}\n{text}"
    builder = (
        pkcs7.PKCS7EnvelopeBuilder()
        .set_data(content.encode())
        .set_content_encryption_algorithm(AES256)
        .add_recipient(certificate)
    )
    return builder.encrypt(Encoding.PEM, [pkcs7.PKCS7Options.Binary])


def is_sealed(content: bytes) -> bool:
    """Whether this is what `sealed` makes, rather than the text of a ring."""
    return content.lstrip().startswith(_BEGIN)


def opened(content: bytes, recipient: Path, key: Path, passphrase: bytes | None) -> str:
    """The ring's text in what `sealed` made; raises KeyFileError when it cannot be opened, or is damaged."""
    try:
        certificate = x509.load_pem_x509_certificate(recipient.read_bytes())
        private = load_pem_private_key(key.read_bytes(), passphrase)
    except OSError as error:
        raise KeyFileError(f"{error.filename} cannot be read: {error.strerror}") from error
    except (ValueError, TypeError) as error:
        raise KeyFileError(
            f"{recipient} or {key} cannot be read as PEM, or the passphrase is wrong"
        ) from error
    if not isinstance(private, RSAPrivateKey):
        raise KeyFileError(f"{key} is no RSA key")
    try:
        plain = pkcs7.pkcs7_decrypt_pem(content, certificate, private, [])
    except ValueError as error:
        raise KeyFileError(f"it was not sealed for {recipient}, or it is damaged") from error
    return checked(plain)


def checked(content: bytes) -> str:
    """The text of a ring, without the sum in front of it; KeyFileError if the sum is another."""
    try:
        text = content.decode("ascii")
    except UnicodeDecodeError as error:
        raise KeyFileError("it is damaged: it is no text") from error
    found = _SUM.match(text)
    if found is None:
        return text
    rest = text[found.end() :]
    if hashlib.sha256(rest.encode()).hexdigest() != found["sum"]:
        raise KeyFileError("it is damaged: its sum is another than it says")
    return rest
