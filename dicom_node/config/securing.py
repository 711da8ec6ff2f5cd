"""Who may come in, how that is proven, and how connections are encrypted."""

from __future__ import annotations

import fnmatch
from typing import Annotated, Self

from pydantic import AfterValidator, model_validator

from dicom_node.config.kinds import CertificateName, File, Network, Pattern, Section, without_repeats
from dicom_node.config.words import TlsProfile


class Tls(Section):
    """What this node shows of itself over TLS, and whom it believes; for every connection, in and out."""

    #: PEM: the certificate, then those of its authorities but the root
    certificate: File | None = None
    #: PEM, not encrypted
    key: File | None = None
    #: PEM: the authorities whose certificates are believed
    ca: File | None = None
    #: PEM: their revocation lists, one for each of them
    crl: File | None = None
    profile: TlsProfile = TlsProfile.BCP195

    @model_validator(mode="after")
    def _certificate_and_key(self) -> Self:
        if (self.certificate is None) != (self.key is None):
            raise ValueError("certificate and key belong together; give both or neither")
        if self.crl is not None and self.ca is None:
            raise ValueError("crl without ca: nobody's certificates are believed that could be revoked")
        return self


class Caller(Section):
    """A peer that may open associations; every condition that is given must hold."""

    ae_title: Pattern
    #: in one of these it must be; none is anywhere
    addresses: Annotated[tuple[Network, ...], AfterValidator(without_repeats)] = ()
    #: its certificate must have one of these names; none is no condition
    certificates: Annotated[tuple[CertificateName, ...], AfterValidator(without_repeats)] = ()
    #: the user names of which it must prove one; none is no condition
    users: Annotated[tuple[str, ...], AfterValidator(without_repeats)] = ()

    def is_called(self, ae_title: str) -> bool:
        """Whether this entry is about an AE title."""
        return fnmatch.fnmatchcase(ae_title, self.ae_title)


class Access(Section):
    """Who may open associations, beyond what the routes say."""

    #: the first that is about a calling AE title decides; none at all lets everybody in
    callers: tuple[Caller, ...] = ()
    #: user names and salted hashes of their passcodes; made by `dicom-node access user`
    users: File | None = None

    def caller(self, ae_title: str) -> Caller | None:
        """The entry about a calling AE title."""
        return next((entry for entry in self.callers if entry.is_called(ae_title)), None)
