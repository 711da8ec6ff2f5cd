"""What a bucket answers is told apart, and nothing that is said of it gives a secret away."""

from __future__ import annotations

from pathlib import Path

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError, NoCredentialsError

from dicom_node.blobs import asking
from dicom_node.blobs.asking import Absent, Bucket, Taken, told_apart
from dicom_node.errors import BlobsUnavailable, KeyFileError

_SECRET = "very-secret-access-key"
_FILE = f"[default]\naws_access_key_id = AKIA\naws_secret_access_key = {_SECRET}\n"
_BUCKET = Bucket("objects", endpoint_url=f"http://user:{_SECRET}@s3.example")


def answered(code: str, status: int) -> ClientError:
    meta = {"HTTPStatusCode": status}
    return ClientError({"Error": {"Code": code, "Message": _SECRET}, "ResponseMetadata": meta}, "PutObject")


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (answered("NoSuchKey", 404), Absent),
        (answered("404", 404), Absent),
        (answered("PreconditionFailed", 412), Taken),
        (answered("NoSuchBucket", 404), BlobsUnavailable),
        (answered("SlowDown", 503), BlobsUnavailable),
        (answered("ConditionalRequestConflict", 409), Taken),
        (answered("OperationAborted", 409), BlobsUnavailable),
        (answered("InternalError", 500), BlobsUnavailable),
        (answered("AccessDenied", 403), BlobsUnavailable),
        (EndpointConnectionError(endpoint_url=_BUCKET.endpoint_url), BlobsUnavailable),
        (NoCredentialsError(), BlobsUnavailable),
    ],
)
def test_every_answer_has_a_meaning_and_no_secret(error: Exception, kind: type[Exception]) -> None:
    with pytest.raises(kind) as caught, told_apart(_BUCKET):
        raise error
    assert _SECRET not in str(caught.value)
    assert caught.value.__cause__ is None  # whose text would be one
    assert caught.value.__suppress_context__


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (answered("NoSuchBucket", 404), "there is no bucket objects"),
        (answered("AccessDenied", 403), "credentials"),
        (answered("SlowDown", 503), "status 503"),
    ],
)
def test_the_operator_hears_what_to_do(error: Exception, said: str) -> None:
    with pytest.raises(BlobsUnavailable, match=said), told_apart(_BUCKET):
        raise error


def test_credentials_come_from_a_file_of_ours_alone(tmp_path: Path) -> None:
    file = tmp_path / "credentials"
    file.write_text(_FILE)
    file.chmod(0o644)
    bucket = Bucket("objects", region="us-east-1", credentials_file=file)
    with pytest.raises(KeyFileError, match="chmod 600"):
        asking.client(bucket)
    file.chmod(0o600)
    assert asking.client(bucket)._request_signer._credentials.secret_key == _SECRET
    file.write_text(_FILE + "aws_session_token = token\n")
    assert asking.client(bucket)._request_signer._credentials.token == "token"


@pytest.mark.parametrize("content", [f"[default]\naws_secret_access_key = {_SECRET}\n", _SECRET, ""])
def test_a_file_that_holds_something_else_is_not_quoted(tmp_path: Path, content: str) -> None:
    file = tmp_path / "credentials"
    file.write_text(content)
    file.chmod(0o600)
    with pytest.raises(KeyFileError, match="needs a section") as caught:
        asking.client(Bucket("objects", credentials_file=file))
    assert _SECRET not in str(caught.value)
    assert caught.value.__cause__ is None


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(KeyFileError, match="does not exist"):
        asking.client(Bucket("objects", credentials_file=tmp_path / "none"))
