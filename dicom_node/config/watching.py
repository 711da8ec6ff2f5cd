"""What those who run the node see of it."""

from __future__ import annotations

from pydantic import Field

from dicom_node.config.kinds import Port, Section
from dicom_node.config.words import LogFormat, LogLevel


class Http(Section):
    """The endpoint for metrics, health and the status page."""

    bind: str = Field(default="127.0.0.1", min_length=1)
    #: null switches it off
    port: Port | None = 8080


class Log(Section):
    """How the node tells what it does, on standard error."""

    format: LogFormat = LogFormat.TEXT
    level: LogLevel = LogLevel.INFO
