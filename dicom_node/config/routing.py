"""Which objects take which way, and what happens to them on it."""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping
from typing import Annotated, Self

from pydantic import AfterValidator, Field, model_validator

from dicom_node.config.kinds import Name, Names, Pattern, SafePrivate, Section, without_repeats
from dicom_node.config.words import (
    CarrierName,
    Dates,
    Descriptors,
    Finding,
    Label,
    OnContent,
    OnError,
    OnFinding,
    OnUnprotectable,
    Profile,
    Retain,
    Role,
    Uids,
)


class Match(Section):
    """Which associations a route takes; patterns as in a shell, case counts."""

    calling_ae: Annotated[tuple[Pattern, ...], Field(min_length=1)] = ("*",)
    called_ae: Annotated[tuple[Pattern, ...], Field(min_length=1)] = ("*",)

    def takes(self, calling_ae: str, called_ae: str) -> bool:
        """Whether both AE titles match."""
        return fits(calling_ae, self.calling_ae) and fits(called_ae, self.called_ae)


class Deidentify(Section):
    """A confidentiality profile (PS3.15 Annex E) and its options."""

    profile: Profile = Profile.NONE
    retain: Annotated[tuple[Retain, ...], AfterValidator(without_repeats)] = ()
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
    #: in place of `watermark.sign`; null keeps that
    sign: bool | None = None
    on_unprotectable: OnUnprotectable = OnUnprotectable.HEADER
    on_error: OnError = OnError.HOLD
    #: of the roles recover and verify; see `on`
    on_finding: Mapping[Finding, OnFinding] = {}
    #: of the role recover
    label: Label = Label.UNLESS_EXACT

    def on(self, finding: str) -> OnFinding:
        """What happens to an object with this finding: as named, else as `other`, else as the role has it.

        A route that recovers hands on originals, and nothing else unasked; one that verifies lets everything
        through. What cannot be judged goes on by either unless it is named itself.
        """
        if finding == Finding.NOT_JUDGED:
            return self.on_finding.get(Finding.NOT_JUDGED, OnFinding.PASS)
        usual = OnFinding.PASS if self.role is Role.VERIFY else OnFinding.HOLD
        return self.on_finding.get(Finding(finding), self.on_finding.get(Finding.OTHER, usual))

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
    def _only_readers_find_anything(self) -> Self:
        if self.on_finding and self.role not in (Role.RECOVER, Role.VERIFY):
            raise ValueError(f"on_finding belongs to the roles recover and verify, not to {self.role}")
        if self.label is not Label.UNLESS_EXACT and self.role is not Role.RECOVER:
            raise ValueError(f"label belongs to the role recover, not to {self.role}")
        return self

    @model_validator(mode="after")
    def _nothing_identified_slips_through(self) -> Self:
        if self.deidentifies and self.on_error is OnError.PASS:
            raise ValueError("on_error: pass would send identified objects on a route that de-identifies")
        return self


def fits(title: str, patterns: tuple[str, ...]) -> bool:
    """Whether an AE title matches any of the patterns."""
    return any(fnmatch.fnmatchcase(title.strip(" "), pattern) for pattern in patterns)
