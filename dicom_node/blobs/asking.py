"""Requests to S3: how long they may take, how often they are tried, and what their errors mean.

boto3 is loaded with the first client, and so only where a bucket is configured. No text that leaves here
holds an address, a key or what a library had to say: a bucket is named, and a bounded word.
"""

from __future__ import annotations

import configparser
import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dicom_node import private
from dicom_node.errors import BlobsUnavailable, ConfigError, KeyFileError

#: seconds for a connection, and for every answer; a sender waits meanwhile, so they are few
_CONNECT_S, _READ_S = 5.0, 20.0
_TRIES = 3
_CONNECTIONS = 32
_ABSENT = frozenset({"404", "NoSuchKey", "NotFound"})
#: the last is Amazon's word for a removal that came between: what is there now is to be looked at
_TAKEN = frozenset({"PreconditionFailed", "412", "ConditionalRequestConflict"})
_REFUSED = frozenset(
    {
        *("403", "AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken"),
        *("AllAccessDisabled", "AccountProblem", "InvalidToken", "RequestTimeTooSkewed"),
    }
)


@dataclass(frozen=True, slots=True)
class Bucket:
    """Where a bucket is, and who may use it; without a file, boto3 looks where it always does."""

    name: str
    prefix: str = ""
    endpoint_url: str | None = None
    region: str | None = None
    credentials_file: Path | None = None


class Absent(Exception):  # noqa: N818 - an answer, not an error
    """There is nothing under this key."""


class Taken(Exception):  # noqa: N818 - an answer, not an error
    """There is something under this key already, or was a moment ago."""


def client(bucket: Bucket, *, tries: int = _TRIES) -> Any:
    """A client for a bucket; any thread may use it, and no other process.

    Raises ConfigError when boto3 is missing, KeyFileError when the credentials cannot be read.
    """
    try:
        import boto3.session
        from botocore.config import Config
    except ImportError as error:
        raise ConfigError(("boto3 is not installed; install dicom-node[cluster] to use a bucket",)) from error
    settings = Config(
        connect_timeout=_CONNECT_S,
        read_timeout=_READ_S,
        retries={"total_max_attempts": tries, "mode": "standard"},
        max_pool_connections=_CONNECTIONS,
        tcp_keepalive=True,
        # what other servers know is what is asked for explicitly, and no more
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        # the checksum of what is put is signed, and the server holds the bytes against it; to hash them again
        # for a signature of their own, as boto3 does without TLS, took a quarter of a put
        s3={
            "addressing_style": "path" if bucket.endpoint_url else "auto",
            "payload_signing_enabled": False,
        },
    )
    with told_apart(bucket):
        return boto3.session.Session().client(
            "s3",
            endpoint_url=bucket.endpoint_url,
            region_name=bucket.region,
            config=settings,
            **_credentials(bucket.credentials_file),
        )


def _credentials(path: Path | None) -> dict[str, str]:
    """What a file in the form of ~/.aws/credentials holds, section `default`."""
    if path is None:
        return {}
    text = private.read_text(path, "write it as ~/.aws/credentials is written")
    parser = configparser.RawConfigParser()
    try:
        parser.read_string(text)
        section = dict(parser["default"])
        found = {name: section[name] for name in ("aws_access_key_id", "aws_secret_access_key")}
    except (configparser.Error, KeyError):
        # nothing of what the library quotes
        raise KeyFileError(
            f"{path} needs a section [default] with aws_access_key_id and aws_secret_access_key"
        ) from None
    token = section.get("aws_session_token")
    return found | ({"aws_session_token": token} if token else {})


@contextlib.contextmanager
def told_apart(bucket: Bucket) -> Iterator[None]:
    """Turn what boto3 raises into Absent, Taken, or BlobsUnavailable with what the operator can do."""
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        yield
    except ClientError as error:
        raise _meant(bucket, error.response) from None
    except (BotoCoreError, ValueError) as error:
        # a refused connection, a time that ran out, no credentials; its text holds the address
        kind = type(error).__name__
        raise BlobsUnavailable(f"bucket {bucket.name} cannot be reached ({kind}); check the server") from None


def _meant(bucket: Bucket, response: dict[str, Any]) -> Exception:
    code = str(response.get("Error", {}).get("Code", ""))
    status = int(response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    if code == "NoSuchBucket":
        return BlobsUnavailable(f"there is no bucket {bucket.name}; make it, or name the right one")
    if code in _ABSENT or status == 404:
        return Absent()
    if code in _TAKEN or status == 412:
        return Taken()
    if code in _REFUSED or status in (401, 403):
        return BlobsUnavailable(
            f"bucket {bucket.name} refuses this node; check its credentials, its policy and the clocks"
        )
    return BlobsUnavailable(f"bucket {bucket.name} answers with status {status}; check the server")
