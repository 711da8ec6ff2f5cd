"""Commands on files tell the trail of the node beside them, before they do what they tell."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest

from dicom_node import cli, keys
from dicom_node.audit.store import Store
from dicom_node.cli import asking
from dicom_node.cli.live import login
from dicom_node.cli.trail import told_to
from dicom_node.errors import ConfigError
from tests.audit_trails import Told, parsed, received
from tests.builders import file_bytes, mr

_CONFIG = """\
node: {{id: n, ae_title: NODE}}
storage: {{folder: {folder}, reserve_mb: 16}}
routes: [{{name: all, role: verify}}]
audit: {{host: {host}, transport: tcp, keep_messages: 100}}
"""


@pytest.fixture
def configuration(scratch: Path) -> Path:
    path = scratch / "node.yaml"
    path.write_text(_CONFIG.format(folder=scratch / "node", host="audit.example"))
    return path


def waiting(scratch: Path) -> list[Told]:
    store = Store(scratch / "node" / "audit", 100)
    messages = [store.read(number) for number in store.waiting()]
    return [received(message) for message in messages if message is not None]


def test_the_first_object_of_a_study_is_told_at_once_and_the_others_at_the_end(
    configuration: Path, scratch: Path
) -> None:
    trail = told_to(configuration, configuration)
    for number in range(5):
        trail.judged("1.2", "authentic" if number else "pixels-altered")
        assert [each.short[0] for each in waiting(scratch)] == [
            "DICOM Instances Accessed",
            "Object Security Attributes Changed",
        ]
    trail.close()
    last = waiting(scratch)[-1]
    assert (last.short, last.instances, last.users[0]) == (
        ("DICOM Instances Accessed", "R", 0),
        4,
        (login(), True),
    )


def test_what_is_judged_and_recovered_is_told_by_study(
    configuration: Path, scratch: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ring, into = scratch / "keyring", scratch / "in"
    keys.generate(ring)
    into.mkdir()
    for number in range(2):
        ds = mr(96, 96, seed=number, StudyInstanceUID="1.2.3", PatientID="P-4711")
        (into / f"{number}.dcm").write_bytes(file_bytes(ds))
    common = ["--keys", str(ring)]
    assert cli.main(["protect", str(into), "--out", str(scratch / "marked"), *common]) == 0
    common += ["--config", str(configuration), "--jobs", "1"]
    assert cli.main(["verify", str(scratch / "marked"), *common]) == 0
    assert cli.main(["recover", str(scratch / "marked"), "--out", str(scratch / "out"), *common]) == 0
    told = waiting(scratch)
    assert [(each.short, each.instances) for each in told] == [
        (("DICOM Instances Accessed", "R", 0), 1),
        (("DICOM Instances Accessed", "R", 0), 1),
        (("Use of Restricted Function", "E", 0), 0),
        (("DICOM Instances Accessed", "R", 0), 1),
        (("Export", "R", 0), 1),
        (("DICOM Instances Accessed", "R", 0), 1),
        (("Export", "R", 0), 1),
    ]
    assert {each.things.get("Study Instance UID", "1.2.3") for each in told} == {"1.2.3"}
    assert {each.things.get("Patient Number", "withheld") for each in told} == {"withheld"}
    assert "out of 2 files" in told[2].described
    capsys.readouterr()


def test_nothing_is_recovered_without_a_trail(
    configuration: Path, scratch: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ring = scratch / "keyring"
    keys.generate(ring)
    (scratch / "image").write_bytes(file_bytes(mr(96, 96)))
    assert (
        cli.main(["protect", str(scratch / "image"), "--out", str(scratch / "m"), "--keys", str(ring)]) == 0
    )
    Store(scratch / "node" / "audit", 100).put([b"full"] * 100)
    command = ["recover", str(scratch / "m"), "--out", str(scratch / "out"), "--keys", str(ring)]
    assert cli.main([*command, "--config", str(configuration)]) == 1
    assert "audit messages wait" in capsys.readouterr().err
    assert not (scratch / "out").exists()


def test_without_a_configuration_nothing_is_told(scratch: Path) -> None:
    told_to(None, scratch / "none.yaml").judged("1.2", "authentic")
    assert not (scratch / "node").exists()


def test_a_configuration_that_is_named_must_be_there(scratch: Path) -> None:
    with pytest.raises(ConfigError):
        told_to(scratch / "none.yaml", scratch / "none.yaml")


def test_who_gave_the_command_is_known_through_sudo(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 0)
    monkeypatch.setenv("SUDO_USER", "anna")
    assert login() == "anna"


def test_status_and_export_show_what_waits_and_the_export_is_told(
    configuration: Path, scratch: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told_to(configuration, configuration).judged("1.2", "authentic")
    for options in ([], ["--json"]):
        assert cli.main(["audit", "status", "--config", str(configuration), *options]) == 0
    assert "1 messages wait for audit.example:6514" in capsys.readouterr().out
    assert cli.main(["audit", "export", "--config", str(configuration)]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert parsed(line.encode()).event == "DICOM Instances Accessed"
    target = scratch / "trail.xml"
    assert cli.main(["audit", "export", "--config", str(configuration), "--out", str(target)]) == 0
    assert [parsed(each).event for each in target.read_bytes().splitlines()] == [
        "DICOM Instances Accessed",
        "Audit Log Used",
    ]
    assert waiting(scratch)[-1].users[0] == (login(), True)


def test_status_says_what_was_lost(
    configuration: Path, scratch: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Store(scratch / "node" / "audit", 100).note(lost=3, lost_since=1.0)
    assert cli.main(["audit", "status", "--config", str(configuration)]) == 3
    assert "3 events were not told since 1970" in capsys.readouterr().out


def test_a_node_without_a_trail_has_none_to_show(
    configuration: Path, scratch: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    configuration.write_text(_CONFIG.format(folder=scratch / "node", host="null"))
    assert cli.main(["audit", "status", "--config", str(configuration)]) == 2
    assert "audit.host" in capsys.readouterr().err


def test_an_archive_that_is_asked_and_what_comes_of_it_are_told(configuration: Path, scratch: Path) -> None:
    peer = ["--peer", "PACS@127.0.0.1:11112", "--config", str(configuration)]
    command = ["query", "list", *peer, "--patient-id", "P-4711"]
    with asking.opened(cli.parser().parse_args(command)) as asked:
        for _ in range(3):
            asked.trail.fetched(asked.archive, "1.2.3", "1.2.840.10008.5.1.4.1.1.2")
    told = waiting(scratch)
    assert [(each.short, each.instances) for each in told] == [
        (("Query", "E", 0), 0),
        (("Import", "C", 0), 1),
        (("Import", "C", 0), 2),
    ]
    assert told[0].users == [(login(), True), ("PACS", False)]
    assert told[0].addresses[1] == "127.0.0.1"
    assert base64.b64decode(told[0].root.findtext(".//ParticipantObjectQuery")) == b"withheld"


def test_a_workstation_without_a_node_has_no_trail(scratch: Path) -> None:
    (scratch / "desk.yaml").write_text("query: {ae_title: DESK}\n")
    told_to(scratch / "desk.yaml", scratch / "none").judged("1.2", "authentic")
    assert not (scratch / "node").exists()
