"""Which part of a new configuration only a start can take up, and how the last reload ended."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from dicom_node.config import Config

#: what the receiver is bound to, what holds what was received, and who is told of it: section -> keys, () is
#: all of it
_FIXED: dict[str, tuple[str, ...]] = {
    "node": ("ae_title", "bind", "port", "tls_port", "receivers", "max_pdu"),
    "storage": ("folder",),
    "audit": (),
}


def needs_restart(before: Config, after: Config) -> list[str]:
    """The keys that differ and that a running node cannot take up, as `section.key`."""
    found = []
    for section, keys in _FIXED.items():
        old, new = getattr(before, section), getattr(after, section)
        for key in keys or type(old).model_fields:
            if getattr(old, key) != getattr(new, key):
                found.append(f"{section}.{key}")
    if after.audit.host is not None and before.tls != after.tls:
        found.append("tls (the audit trail uses it)")
    if after.audit.host is not None and before.node.id != after.node.id:
        found.append("node.id (the audit trail says it)")
    return found


@dataclass(slots=True)
class Reloads:
    """How the last reload ended, and when a configuration was last taken up, seconds since 1970-01-01 UTC."""

    successful: bool = True
    taken_up_at: float = field(default_factory=time.time)

    def done(self) -> None:
        """A configuration has been taken up."""
        self.successful, self.taken_up_at = True, time.time()

    def failed(self) -> None:
        """One was refused; the one before it is in force."""
        self.successful = False
