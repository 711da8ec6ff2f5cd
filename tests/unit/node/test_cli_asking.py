"""Which archive a command line names, and what it asks for."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from dicom_node import cli
from dicom_node.cli.asking import destination_of, inquiry_of, keys_of, opened
from dicom_node.errors import ConfigError, TlsError, UsageError
from dicom_node.inquiry import Level
from tests.shelf import Shelf, instance

_YAML = """\
query:
  ae_title: AUDITOR
  peers:
    pacs: {ae_title: PACS, host: localhost, port: 104, associations: 2}
destinations:
  archive: {ae_title: ARCHIVE, host: localhost, port: 105}
"""


def parsed(*arguments: str, action: str = "list", peer: str = "PACS@pacs:104") -> argparse.Namespace:
    return cli.parser().parse_args(["query", action, "--peer", peer, *arguments])


@pytest.fixture
def config(tmp_path: Path) -> str:
    path = tmp_path / "workstation.yaml"
    path.write_text(_YAML)
    return str(path)


def test_an_address_needs_no_configuration() -> None:
    with opened(parsed(peer="ANY-SCP@pacs.example:11112")) as asked:
        assert (asked.name, asked.peer.ae_title, asked.peer.host, asked.peer.port) == (
            *("ANY-SCP", "ANY-SCP", "pacs.example"),
            11112,
        )
    with opened(parsed(peer="PACS@[::1]:104")) as asked:
        assert asked.peer.host == "::1"
    with opened(parsed(peer="https://pacs.example:8042/dicom-web")) as asked:
        assert (asked.name, asked.peer.dicomweb) == (
            "pacs.example:8042",
            "https://pacs.example:8042/dicom-web",
        )


def test_names_are_looked_up_and_options_win(config: str) -> None:
    with opened(parsed("--config", config, peer="pacs")) as asked:
        assert (asked.peer.associations, asked.query.ae_title, asked.peer.retrieve) == (2, "AUDITOR", "get")
    more = ("--aet", "OTHER", "--retrieve", "move", "--port", "999")
    with opened(parsed("--config", config, *more, peer="archive")) as asked:
        assert (asked.peer.ae_title, asked.query.ae_title, asked.query.port) == ("ARCHIVE", "OTHER", 999)
        assert asked.peer.retrieve == "move"


@pytest.mark.parametrize("peer", ["nobody", "PACS@pacs:0", "http://me:secret@pacs/x"])
def test_who_is_nobody_is_told(peer: str, config: str) -> None:
    with pytest.raises(UsageError) as caught, opened(parsed("--config", config, peer=peer)):
        pass
    assert "secret" not in str(caught.value)


def test_a_name_without_a_configuration_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    args = parsed(peer="pacs")
    args.default_config = tmp_path / "nothing.yaml"
    with pytest.raises(ConfigError, match="cannot be read"), opened(args):
        pass


def test_destinations_are_names_or_addresses(config: str) -> None:
    args = parsed("--config", config, "--all", "--to", "archive", action="send", peer="pacs")
    assert destination_of(args, "archive").ae_title == "ARCHIVE"
    assert destination_of(args, "A@b:1").port == 1
    with pytest.raises(UsageError, match="there are archive"):
        destination_of(args, "pacs")


def test_levels_follow_what_is_given() -> None:
    assert inquiry_of(parsed()).level is Level.STUDY
    assert inquiry_of(parsed("--study", "1")).level is Level.SERIES
    assert inquiry_of(parsed("--study", "1", "--series", "2")).level is Level.IMAGE
    assert inquiry_of(parsed("--study", "1", "-L", "patient")).level is Level.PATIENT
    assert inquiry_of(parsed("--study", "1", action="verify")).level is Level.IMAGE


def test_options_are_keys() -> None:
    inquiry = inquiry_of(
        parsed("--patient-id", "A*", "--study", "1.2, 1.3", "-m", "StudyDescription=a=b", "-r", "StudyID")
    )
    assert inquiry.matches == {"PatientID": "A*", "StudyInstanceUID": "1.2\\1.3", "StudyDescription": "a=b"}
    assert inquiry.wanted == ("StudyID",)


@pytest.mark.parametrize(
    ("arguments", "action"),
    [
        (("--series", "1"), "list"),
        (("--instance", "1"), "list"),
        (("-m", "Nonsense=1"), "list"),
        ((), "verify"),
        (("--all", "--study", "1"), "verify"),
    ],
)
def test_what_makes_no_sense_is_told(arguments: tuple[str, ...], action: str) -> None:
    with pytest.raises(UsageError):
        inquiry_of(parsed(*arguments, action=action))


@pytest.mark.parametrize(
    "arguments", [("-m", "PatientID"), ("--limit", "0"), ("--port", "70000"), ("--aet", "x\\y")]
)
def test_what_cannot_be_is_refused_by_the_parser(
    arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        parsed(*arguments)
    assert arguments[0].strip("-") in capsys.readouterr().err


def test_the_key_ring_is_of_the_command_line_or_of_the_file_or_the_usual_one(
    config: str, tmp_path: Path
) -> None:
    verify = ("--config", config, "--all")
    usual = keys_of(parsed(*verify, action="verify", peer="pacs"))
    assert usual == parsed(*verify, action="verify").default_keys
    Path(config).write_text(_YAML + "keys: {ring: own-ring}\n")
    assert keys_of(parsed(*verify, action="verify", peer="pacs")) == tmp_path / "own-ring"
    assert keys_of(parsed(*verify, "--keys", "given", action="verify", peer="pacs")) == Path("given")


@pytest.mark.parametrize(
    ("arguments", "levels"),
    [
        (("--study", "1.2.300"), ["STUDY"]),
        (("--study", "1.2.300", "--series", "1.2.30.0"), ["SERIES"]),
        (("--study", "1.2.300", "--series", "1.2.30.0", "--instance", "1.2.3.1"), ["IMAGE"]),
        (("--patient-id", "P1", "-m", "SOPClassUID=1.2.840.10008.5.1.4.1.1.2"), ["IMAGE"]),
    ],
)
def test_no_more_is_fetched_than_was_asked_for(
    arguments: tuple[str, ...], levels: list[str], tmp_path: Path
) -> None:
    shelf = Shelf([instance(1), instance(2)])
    with shelf.open() as settings:
        name = tmp_path / "workstation.yaml"
        name.write_text(
            f"query: {{peers: {{x: {{ae_title: S, host: 127.0.0.1, port: {settings.port}, level: study}}}}}}"
        )
        args = parsed("--config", str(name), *arguments, action="verify", peer="x")
        with opened(args) as asked, asked.collected(tmp_path / "out", asked.orders()) as collection:
            assert list(collection)
    assert [get.QueryRetrieveLevel for get in shelf.gets] == levels


def test_what_is_asked_over_tls_does_not_send_in_the_clear(tmp_path: Path) -> None:
    """An archive that is told to move opens a connection of its own, to a port that must show something."""
    config = tmp_path / "query.yaml"
    peer = "{ae_title: P, host: h, port: 104, tls: true, retrieve: move}"
    config.write_text(f"tls: {{ca: ca.pem}}\nquery:\n  peers: {{pacs: {peer}}}\n")
    args = parsed("--config", str(config), peer="pacs")
    with pytest.raises(TlsError, match=r"tls\.certificate"), opened(args):
        pass
