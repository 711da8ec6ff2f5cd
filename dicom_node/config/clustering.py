"""Several machines as one node: what each of them does, and the servers that they share."""

from __future__ import annotations

from typing import Annotated, Self
from urllib.parse import SplitResult, urlsplit

from pydantic import AfterValidator, Field, model_validator

from dicom_node.config.kinds import File, Section, without_repeats
from dicom_node.config.words import BlobKind, ClusterPart

#: of queues and locks; a subset of what RabbitMQ and PostgreSQL take without quoting
ClusterName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{0,31}$")]


def _address(url: str, schemes: tuple[str, ...], remedy: str) -> SplitResult:
    """The parts of a URL without a password; no message quotes it, for it may hold one."""
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018 - raises where it is no number
    except ValueError as error:
        raise ValueError(f"url is no address; write {remedy}") from error
    if parts.password is not None:
        raise ValueError("url holds a password; take it out and put it into password_file, mode 0600")
    if parts.scheme not in schemes or not parts.hostname or not parts.username:
        raise ValueError(f"url is not of the form {remedy}")
    return parts


class Database(Section):
    """The PostgreSQL that holds the ledger of all machines."""

    url: str
    #: the password, alone in its file, mode 0600; null: the database asks for none
    password_file: File | None = None
    #: connections that one process keeps at most
    pool: int = Field(default=8, ge=2, le=64)

    @model_validator(mode="after")
    def _is_postgresql(self) -> Self:
        parts = _address(self.url, ("postgresql",), "postgresql://USER@HOST:5432/DATABASE")
        if len(parts.path) < 2:
            raise ValueError("url names no database; write postgresql://USER@HOST:5432/DATABASE")
        return self


class Broker(Section):
    """The RabbitMQ that wakes workers and forwarders on other machines."""

    url: str
    #: the password, alone in its file, mode 0600
    password_file: File | None = None
    #: PEM: the authorities by which it is known, for amqps; null: those that this machine trusts
    ca: File | None = None

    @model_validator(mode="after")
    def _is_amqp(self) -> Self:
        _address(self.url, ("amqp", "amqps"), "amqp://USER@HOST:5672/VHOST or amqps://...")
        return self


class Blobs(Section):
    """Where the bytes of objects are kept, for all machines: a shared directory, or a bucket of an S3."""

    kind: BlobKind
    #: of the kind directory: on a file system that all machines mount, with hard links
    directory: File | None = None
    #: of the kind s3: the bucket, and what the names of objects in it begin with
    bucket: str | None = Field(default=None, min_length=3, max_length=63)
    prefix: str = Field(default="", max_length=256)
    #: the S3, if it is not Amazon's
    endpoint_url: str | None = Field(default=None, min_length=8)
    region: str | None = Field(default=None, min_length=1)
    #: an AWS credentials file, mode 0600; null: whatever this machine gives a program (role, environment)
    credentials_file: File | None = None
    #: megabytes of local disk for objects that are read again soon
    cache_mb: int = Field(default=4096, ge=64)

    @model_validator(mode="after")
    def _of_one_kind(self) -> Self:
        if self.kind is BlobKind.DIRECTORY and self.directory is None:
            raise ValueError("kind: directory needs directory, a folder that all machines mount")
        if self.kind is BlobKind.S3 and self.bucket is None:
            raise ValueError("kind: s3 needs bucket")
        others = ("bucket", "endpoint_url", "region", "credentials_file", "prefix")
        strange = others if self.kind is BlobKind.DIRECTORY else ("directory",)
        given = [key for key in strange if getattr(self, key)]
        if given:
            raise ValueError(f"{', '.join(given)} does not go with kind: {self.kind}")
        return self


class Cluster(Section):
    """Several machines as one node."""

    #: what the names of its queues and locks begin with
    name: ClusterName
    #: what this machine does
    parts: Annotated[
        tuple[ClusterPart, ...], Field(min_length=1), AfterValidator(lambda parts: without_repeats(parts))
    ] = tuple(ClusterPart)
    database: Database
    #: null: nobody rings, everybody looks into the ledger every second
    broker: Broker | None = None
    blobs: Blobs
    #: seconds after which what is due and lies with nobody is rung for again
    reconcile_s: float = Field(default=5.0, ge=0.5, le=300.0)
