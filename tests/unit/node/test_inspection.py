"""A broker that cannot work is named with what to do; its password is not."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("celery")

from amqp.exceptions import AccessRefused

from dicom_node.config import Broker
from dicom_node.dispatch import inspection
from dicom_node.dispatch.inspection import inspect
from dicom_node.errors import BrokerError


@pytest.fixture
def broker(tmp_path: Path) -> Broker:
    secret = tmp_path / "secret"
    secret.write_text("hunter2", "ascii")
    secret.chmod(0o600)
    return Broker(url="amqp://node@127.0.0.1:1/v", password_file=secret)


def test_a_broker_that_is_not_there(broker: Broker) -> None:
    with pytest.raises(BrokerError, match=r"at 127\.0\.0\.1 is not reached") as caught:
        inspect(broker, ["site.work"])
    assert "hunter2" not in str(caught.value)


def test_a_broker_that_does_not_let_us_in(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_arguments: object, **_options: object) -> None:
        raise AccessRefused("hunter2")

    monkeypatch.setattr(inspection, "application", refused)
    with pytest.raises(BrokerError, match="does not let us in") as caught:
        inspect(broker, ["site.work"])
    assert "hunter2" not in str(caught.value)
