"""Every key has a default that the manual tells; every mistake is found, all at once, on its line."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from blessmark import types
from dicom_node import config
from dicom_node.config import Config, OnFinding, Role, Transcode
from dicom_node.errors import ConfigError

_CONFIG_FOLDER = Path(__file__).resolve().parents[3] / "config"
_EXAMPLE = _CONFIG_FOLDER / "dicom-node.example.yaml"
_CLUSTER_EXAMPLE = _CONFIG_FOLDER / "dicom-node.cluster.example.yaml"

_MINIMAL = """\
node: {id: n, ae_title: NODE}
storage: {folder: data}
destinations:
  pacs: {ae_title: PACS, host: localhost, port: 104}
routes:
  - {name: all, role: protect, destinations: [pacs]}
"""


def parse(text: str) -> Config:
    return config.parse(text, Path("/etc/node/node.yaml"))


def problems(text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        parse(text)
    return [problem.removeprefix("/etc/node/node.yaml:") for problem in caught.value.problems]


def with_node(extra: str) -> str:
    return _MINIMAL.replace("ae_title: NODE", f"ae_title: NODE, {extra}")


def parse_route(keys: str) -> config.Route:
    """The route of a file with these keys."""
    role = "" if "role:" in keys else "role: protect, "
    return parse(_MINIMAL.replace("role: protect,", f"{role}{keys},")).routes[0]


def test_the_example_loads_and_shows_only_defaults() -> None:
    example = config.load(_EXAMPLE)
    required: dict[str, Any] = {
        "node": {"id": "node-1", "ae_title": "DICOMNODE"},
        "storage": {"folder": "/var/lib/dicom-node"},
        "destinations": {"archive": {"ae_title": "ARCHIVE", "host": "archive.example", "port": 11112}},
        "routes": [{"name": "protect-all", "role": "protect", "destinations": ["archive"]}],
        "query": {"peers": {"pacs": {"ae_title": "PACS", "host": "pacs.example", "port": 11112}}},
    }
    assert example == parse(json.dumps(required))


def test_the_example_names_every_key() -> None:
    text = _EXAMPLE.read_text("utf-8") + _CLUSTER_EXAMPLE.read_text("utf-8")
    written = set(re.findall(r"\b([a-z_]+):", text))  # commented examples count
    declared = {name for section in config.Section.__subclasses__() for name in section.model_fields}
    assert declared <= written


def test_the_schema_in_the_repository_is_fresh() -> None:
    path = _CONFIG_FOLDER / "dicom-node.schema.json"
    assert path.read_text("utf-8") == config.json_schema(), f"write {path} anew: dicom-node config schema"


def test_a_minimal_file_is_enough() -> None:
    loaded = parse(_MINIMAL)
    assert loaded.node.port == 11112
    assert loaded.destinations["pacs"].retry.cap_s == 900.0
    assert loaded.watermark.record == tuple(config.RECORD_FIELDS)


def test_relative_paths_start_at_the_file() -> None:
    loaded = parse(_MINIMAL + "keys: {ring: ring.txt}\n")
    assert loaded.storage.folder == Path("/etc/node/data")
    assert loaded.storage.spool_dir == Path("/etc/node/data/spool")
    assert loaded.storage.ledger_path == Path("/etc/node/data/ledger.sqlite")
    assert loaded.keys.ring == Path("/etc/node/ring.txt")


def test_values_are_frozen() -> None:
    loaded = parse(_MINIMAL)
    with pytest.raises(ValueError, match="frozen"):
        setattr(loaded.node, "port", 1)  # noqa: B010 - what mypy forbids must fail at run time too


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("port", "0104"),
        ("port", "12:30"),
        ("port", "0x10"),
        ("port", "0b1"),
        ("port", "1_000"),
        ("bind", "NO"),
        ("bind", "off"),
        ("bind", "True"),
        ("bind", "2026-01-31"),
        ("bind", ".inf"),
        ("bind", "1."),
        ("bind", "="),
    ],
)
def test_what_yaml_would_guess_at_is_refused_with_line_value_and_remedy(key: str, value: str) -> None:
    found = problems(
        _MINIMAL.replace("{id: n, ae_title: NODE}", f"\n  id: n\n  ae_title: NODE\n  {key}: {value}")
    )
    assert len(found) == 1
    assert found[0].startswith(f"4: node.{key}: YAML reads {value} as ")
    assert found[0].endswith(f"quote it: '{value}'")


def test_quoted_traps_are_text() -> None:
    loaded = parse(_MINIMAL.replace("id: n,", "id: 'NO',").replace("ae_title: NODE", 'ae_title: "0104"'))
    assert (loaded.node.id, loaded.node.ae_title) == ("NO", "0104")


def test_a_key_given_twice_is_refused() -> None:
    assert problems(_MINIMAL + "storage: {folder: other}\n") == [
        "2: storage: is there twice, first on line 2, again on line 7"
    ]


def test_aliases_are_refused() -> None:
    text = _MINIMAL.replace("host: localhost", "host: &h localhost").replace(
        "routes:", "  b: {ae_title: B, host: *h, port: 1}\nroutes:"
    )
    assert [problem.split(": ")[1] for problem in problems(text)] == ["destinations.b.host"]


def test_every_problem_is_reported_at_once_in_the_order_of_the_file() -> None:
    text = """\
node: {id: "a b", ae_title: " X", port: 70000, bidn: 1}
storage: {}
workers:
  count: 0
  lease_s: "5"
watermark: {record: [PatientName, Nonsense]}
destinations:
  a: {ae_title: A, host: h, port: 1, retry: {first_s: 9.0, cap_s: 1.0, jitter: yes}}
routes:
  - {name: x, role: protect, destinations: [nowhere]}
  - {name: x, role: pass}
  - {name: y, role: protekt, match: {calling_ae: []}}
loging: {}
"""
    places = [problem.split(": ")[0:2] for problem in problems(text)]
    assert sorted(map(tuple, places)) == sorted(
        [
            ("1", "node.id"),
            ("1", "node.ae_title"),
            ("1", "node.port"),
            ("1", "node.bidn"),
            ("2", "storage.folder"),
            ("4", "workers.count"),
            ("5", "workers.lease_s"),
            ("6", "watermark.record[1]"),
            ("8", "destinations.a.retry.jitter"),
            ("10", "routes[0].destinations[0]"),
            ("11", "routes[1].name"),
            ("11", "routes[1].match"),
            ("11", "routes[1].destinations"),
            ("12", "routes[2].match"),
            ("12", "routes[2].match.calling_ae"),
            ("12", "routes[2].role"),
            ("13", "loging"),
        ]
    )
    assert [int(line) for line, _ in places] == sorted(int(line) for line, _ in places)


def test_a_cap_below_the_first_delay_is_refused() -> None:
    text = _MINIMAL.replace("port: 104", "port: 104, retry: {first_s: 9.0, cap_s: 1.0}")
    assert problems(text) == [
        "4: destinations.pacs.retry: cap_s is below first_s; the cap is the longest delay"
    ]


def test_a_misspelled_key_is_answered_with_the_right_one() -> None:
    assert problems(with_node("max_asociations: 5")) == [
        "1: node.max_asociations: is unknown here; did you mean max_associations?"
    ]


@pytest.mark.parametrize("text", ["a: [", "node: a\n  b: c", "\tx: 1"])
def test_broken_yaml_is_one_problem_with_its_line(text: str) -> None:
    found = problems(text)
    assert len(found) == 1
    assert found[0].split(":")[0].isdigit()


@pytest.mark.parametrize("text", ["", "5", "- node", "~"])
def test_a_file_that_is_no_mapping_is_a_problem(text: str) -> None:
    assert problems(text)


def test_unreadable_files_are_problems(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        config.load(tmp_path / "absent.yaml")
    (tmp_path / "latin.yaml").write_bytes(b"node: \xe9")
    with pytest.raises(ConfigError, match="UTF-8"):
        config.load(tmp_path / "latin.yaml")


@pytest.mark.parametrize("title", ["A" * 17, "A\\B", "A\tB", "", "Ä"])
def test_impossible_ae_titles_are_refused(title: str) -> None:
    assert problems(_MINIMAL.replace("ae_title: NODE", f"ae_title: {json.dumps(title)}"))


def test_unlimited_pdus_are_refused() -> None:
    assert problems(with_node("max_pdu: 0"))


def test_any_keyword_of_the_dictionary_may_be_recorded() -> None:
    loaded = parse(_MINIMAL + "watermark: {record: [PatientID, StudyDescription]}\n")
    assert [config.record_tag(keyword) for keyword in loaded.watermark.record] == [0x00100020, 0x00081030]


def test_the_default_record_is_pydicoms_spelling_of_the_tags() -> None:
    from pydicom.datadict import tag_for_keyword

    assert {keyword: tag_for_keyword(keyword) for keyword in config.RECORD_FIELDS} == config.RECORD_FIELDS


def test_the_default_record_is_what_the_engine_expects_of_a_full_one() -> None:
    from blessmark.payload.record import FULL_FIELDS

    assert tuple(config.RECORD_FIELDS.values()) == FULL_FIELDS


_ROUTES = (
    _MINIMAL.split("routes:", maxsplit=1)[0]
    + """\
routes:
  - {name: ct, role: protect, destinations: [pacs], match: {calling_ae: ["CT*", "MR?"]}}
  - {name: back, role: recover, destinations: [pacs], match: {called_ae: [RECOVER]}}
  - {name: audit, role: verify, match: {calling_ae: ["AUDIT"]}}
"""
)


@pytest.mark.parametrize(
    ("calling", "called", "name"),
    [
        ("CT1", "NODE", "ct"),
        ("CT1", "RECOVER", "ct"),
        ("MR1", "NODE", "ct"),
        ("MR12", "RECOVER", "back"),
        ("ct1", "NODE", None),
        ("AUDIT ", "NODE", "audit"),
        ("OTHER", "NODE", None),
    ],
)
def test_the_first_matching_route_takes_an_association(calling: str, called: str, name: str | None) -> None:
    route = parse(_ROUTES).route_for(calling, called)
    assert (route and route.name) == name


def test_a_route_is_found_by_name() -> None:
    loaded = parse(_ROUTES)
    route = loaded.route("back")
    assert route is not None
    assert route.role is Role.RECOVER
    assert loaded.route("gone") is None


def test_importing_is_cheap() -> None:
    heavy = "{'numpy', 'pydicom', 'sqlalchemy'}"
    code = f"import sys, dicom_node.config; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


RULES = """\
node: {id: n, ae_title: N}
storage: {folder: .}
watermark:
  segmenter_rules:
    - {use: vessels, modality: [OP, XA], colour: true}
    - {use: whole, body_part: [HAND]}
destinations: {pacs: {ae_title: P, host: localhost, port: 104}}
routes: [{name: all, role: protect, destinations: [pacs]}]
"""


@pytest.mark.parametrize(
    ("modality", "body_part", "colour", "chosen"),
    [
        ("OP", "", True, "vessels"),
        ("XA", "HAND", True, "vessels"),
        ("OP", "", False, None),
        ("CR", "HAND", False, "whole"),
        ("CT", "", False, None),
    ],
)
def test_a_segmenter_rule_fits_when_all_its_conditions_hold(modality, body_part, colour, chosen):
    rules = parse(RULES).watermark.segmenter_rules
    fitting = [rule.use for rule in rules if rule.fits(modality, "1.2", body_part, colour=colour)]
    assert next(iter(fitting), None) == chosen


class TestPrivacy:
    """Routes that derive UIDs or de-identify."""

    def test_everything_of_a_profile_can_be_said(self) -> None:
        route = parse_route(
            "deidentify: {profile: basic, retain: [device, patient], dates: modify, descriptors: clean, "
            'safe_private: ["0019,xx0C,SOMEBODY"], on_content: pass}'
        )
        assert route.deidentifies
        assert route.deidentify.dates is config.Dates.MODIFY

    @pytest.mark.parametrize(
        ("keys", "complaint"),
        [
            ("role: verify, uids: derive", "belong to the role protect"),
            ("role: recover, deidentify: {profile: basic}", "belong to the role protect"),
            ("deidentify: {profile: basic}, on_error: pass", "would send identified objects"),
            ("deidentify: {retain: [uids, uids]}", "named twice"),
            ("on_finding: {unmarked: hold}", "on_finding belongs to the roles recover and verify"),
            ("label: always", "label belongs to the role recover"),
            ("role: recover, on_finding: {unmraked: hold}", "header-altered"),
            ("role: recover, on_finding: {authentic: hold}", "header-altered"),
            ("role: recover, on_finding: {unmarked: keep}", "hold"),
            ('deidentify: {safe_private: ["0018,xx0C,EVEN"]}', "pattern"),
        ],
    )
    def test_what_would_do_harm_is_refused(self, keys: str, complaint: str) -> None:
        with pytest.raises(ConfigError, match=complaint):
            parse_route(keys)

    def test_findings_go_by_name_then_by_other_then_by_role(self) -> None:
        route = parse_route("role: recover, on_finding: {unmarked: pass, other: reject}")
        assert (route.on("unmarked"), route.on("damaged")) == (OnFinding.PASS, OnFinding.REJECT)
        assert parse_route("role: recover").on("unmarked") is OnFinding.HOLD
        assert parse_route("role: verify").on("damaged") is OnFinding.PASS

    def test_what_cannot_be_judged_passes_unless_it_is_named_itself(self):
        assert parse_route("role: recover, on_finding: {other: hold}").on("not-judged") is OnFinding.PASS
        named = parse_route("role: verify, on_finding: {not-judged: reject}")
        assert (named.on("not-judged"), named.on("damaged")) == (OnFinding.REJECT, OnFinding.PASS)

    def test_the_findings_are_those_of_the_engine(self) -> None:
        words = {str(finding) for finding in types.Finding} - {"authentic"} | {"other", "not-judged"}
        assert {str(finding) for finding in config.Finding} == words

    def test_nothing_is_taken_out_by_default(self) -> None:
        assert not parse_route("on_error: hold").deidentifies


def with_destination(extra: str) -> str:
    return _MINIMAL.replace(
        "port: 104}", f"port: 104, {extra}}}\n  vna: {{ae_title: VNA, host: h, port: 104}}"
    )


@pytest.mark.parametrize(
    ("extra", "place", "said"),
    [
        ('windows: ["22-06"]', "windows[0]", "is written HH:MM-HH:MM"),
        ('windows: ["06:00-06:00"]', "windows[0]", "begins when it ends"),
        ('windows: ["22:00-06:00", "22:00-06:00"]', "windows", "named twice"),
        ("failover: pacs", "failover", "is the destination itself"),
        ("failover: nowhere", "failover", "there is no destination nowhere"),
        ("failover: 5", "failover", "valid string"),
        ("failover: vna, failover_after_s: -1.0", "failover_after_s", "greater than or equal to 0"),
        ("transcode: lossy", "transcode", "'never' or 'lossless'"),
        ("transcode_to: []", "transcode_to", "at least 1"),
        ("transcode_to: [explicit, explicit]", "transcode_to", "named twice"),
        ("transcode_to: [big-endian]", "transcode_to[0]", "'explicit' or 'implicit'"),
    ],
)
def test_what_a_destination_cannot_be(extra: str, place: str, said: str) -> None:
    start = f"4: destinations.pacs.{place}: "
    assert any(said in found for found in problems(with_destination(extra)) if found.startswith(start))


def test_a_destination_with_hours_and_a_fail_over() -> None:
    loaded = parse(with_destination('failover: vna, windows: ["22:00-06:00"], transcode_to: [implicit]'))
    pacs = loaded.destinations["pacs"]
    assert [(window.start, window.end) for window in pacs.open_hours] == [(1320, 360)]
    assert (pacs.failover, pacs.failover_after_s, pacs.transcode) == ("vna", 600.0, Transcode.LOSSLESS)


def test_a_route_to_a_destination_and_its_fail_over_is_refused() -> None:
    text = with_destination("failover: vna").replace("[pacs]", "[pacs, vna]")
    (found,) = problems(text)
    assert found.startswith("7: routes[0].destinations[0]: vna is the fail-over of pacs; ")


@pytest.mark.parametrize(("priority", "accepted"), [(10, True), (-100, True), (101, False)])
def test_a_route_has_a_priority(priority: int, accepted: bool) -> None:
    text = _MINIMAL.replace("role: protect,", f"role: protect, priority: {priority},")
    if accepted:
        assert parse(text).routes[0].priority == priority
    else:
        assert any(found.startswith("6: routes[0].priority: ") for found in problems(text))


_COMMITTING = _MINIMAL.replace("port: 104}", "port: 104, commitment: true, mandatory: false}") + (
    "commitment: {requesters: [{ae_title: CT1, host: ct1, port: 105}]}\n"
)


def test_an_answer_goes_where_the_file_says_else_to_the_destination_of_that_title() -> None:
    made = parse(_COMMITTING)
    listed, destination = made.requester("CT1"), made.requester("PACS")
    assert listed is not None
    assert destination is not None
    assert (listed.host, listed.port) == ("ct1", 105)
    assert (destination.host, destination.port) == ("localhost", 104)
    assert made.requester("MR1") is None


def test_whom_a_destination_that_is_asked_may_be() -> None:
    made = parse(_COMMITTING)
    assert made.answers_commitment("PACS")
    assert not made.answers_commitment("CT1")
    assert not parse(_MINIMAL).answers_commitment("PACS"), "nobody asks it anything"


def test_a_destination_is_mandatory_unless_the_file_says_otherwise() -> None:
    assert parse(_MINIMAL).is_mandatory("pacs")
    assert parse(_MINIMAL).is_mandatory("removed")
    assert not parse(_COMMITTING).is_mandatory("pacs")


def test_two_addresses_of_one_title_are_refused() -> None:
    twice = _COMMITTING.replace("port: 105}", "port: 105}, {ae_title: CT1, host: ct2, port: 105}")
    assert problems(twice) == ["7: commitment.requesters: named twice: CT1"]


@pytest.mark.parametrize(
    ("text", "place"),
    [
        (_MINIMAL + "watermark: {sign: true}\n", "watermark.sign"),
        (_MINIMAL.replace("role: protect,", "role: protect, sign: true,"), "routes[0].sign"),
    ],
)
def test_who_signs_needs_a_key_to_sign_with(text: str, place: str) -> None:
    (found,) = problems(text)
    assert place in found
    assert "keys new-signing" in found
    loaded = parse(text + "keys: {signing: signing-keys}\n")
    assert loaded.keys.signing == Path("/etc/node/signing-keys")
    assert loaded.signs(loaded.routes[0])


def test_a_route_may_leave_signing_to_others() -> None:
    text = _MINIMAL.replace("role: protect,", "role: protect, sign: false,")
    loaded = parse(text + "watermark: {sign: true}\nkeys: {signing: signing-keys}\n")
    assert not loaded.signs(loaded.routes[0])
    assert not parse(_MINIMAL).signs(parse(_MINIMAL).routes[0])


def test_the_first_configuration_of_an_installation_is_good() -> None:
    first = config.load(_CONFIG_FOLDER / "first.yaml")
    assert first.storage.folder == Path("/var/lib/dicom-node")
    assert [route.role for route in first.routes] == [Role.PROTECT]


# ---- TLS and who may come in ----

_TLS = "tls: {certificate: own.pem, key: own.key, ca: ca.pem}\n"


def test_files_of_tls_start_at_the_file_and_credentials_at_their_folder(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    text = _MINIMAL + "tls: {certificate: own.pem, key: 'credential:own.key', ca: /etc/ca.pem}\n"
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    assert parse(text).tls.key == Path("credential:own.key")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", "/run/credentials/node")
    tls = parse(text).tls
    assert (tls.certificate, tls.key, tls.ca) == (
        Path("/etc/node/own.pem"),
        Path("/run/credentials/node/own.key"),
        Path("/etc/ca.pem"),
    )


def test_ports_in_the_clear_and_with_tls() -> None:
    both = parse(with_node("tls_port: 2762") + _TLS)
    assert (both.node.port, both.node.tls_port, both.node.tls_clients) == (11112, 2762, "required")
    assert parse(with_node("port: null, tls_port: 2762") + _TLS).node.port is None


@pytest.mark.parametrize(
    ("node", "more", "said"),
    [
        ("port: null", "", "nobody could reach the node"),
        ("tls_port: 11112", _TLS, "2762 is registered"),
        ("tls_port: 2762", "", "needs tls.certificate"),
        ("tls_port: 2762", "tls: {certificate: a, key: b}\n", "needs tls.ca"),
        ("tls_port: 2762, tls_clients: sometimes", _TLS, "required"),
        ("max_pdu: 4096", "tls: {certificate: a}\n", "belong together"),
        ("max_pdu: 4096", "tls: {crl: a}\n", "crl without ca"),
        ("max_pdu: 4096", "tls: {profile: null_cipher}\n", "modified"),
        (
            "max_pdu: 4096",
            "access: {callers: [{ae_title: A, certificates: [a.example]}]}\n",
            "nobody shows a certificate",
        ),
        ("max_pdu: 4096", "access: {callers: [{ae_title: A, users: [u]}]}\n", "needs access.users"),
        ("max_pdu: 4096", "access: {callers: [{ae_title: A, addresses: [10.0.0.1/8]}]}\n", "10.1.2.0/24"),
        (
            "max_pdu: 4096",
            "access: {callers: [{ae_title: A, addresses: [host.example]}]}\n",
            "not an address or network",
        ),
        (
            "max_pdu: 4096",
            "access: {callers: [{ae_title: A, certificates: ['sha256:AB:CD']}]}\n",
            "64 hex digits",
        ),
        ("max_pdu: 4096", "access: {calers: []}\n", "did you mean callers"),
        (
            "max_pdu: 4096",
            "commitment: {requesters: [{ae_title: A, host: h, port: 1, tls: true}]}\n",
            "needs tls.ca",
        ),
    ],
)
def test_what_would_keep_everybody_or_nobody_out_is_a_problem(node: str, more: str, said: str) -> None:
    assert any(said in problem for problem in problems(with_node(node) + more))


def test_a_destination_over_tls_needs_somebody_to_believe() -> None:
    text = _MINIMAL.replace("port: 104", "port: 104, tls: true, tls_name: pacs.example")
    assert problems(text) == [
        "4: destinations.pacs.tls: needs tls.ca, which says whose certificates are believed"
    ]
    assert parse(text + _TLS).destinations["pacs"].tls_name == "pacs.example"


def test_who_is_asked_about_commitment_at_a_destination_is_asked_as_it_is_sent_to() -> None:
    text = _MINIMAL.replace("port: 104", "port: 104, tls: true, tls_name: pacs.example") + _TLS
    requester = parse(text).requester("PACS")
    assert requester is not None
    assert (requester.tls, requester.tls_name) == (True, "pacs.example")


def test_the_first_entry_about_a_caller_decides() -> None:
    text = (
        _MINIMAL
        + "access: {callers: [{ae_title: CT1, addresses: [10.0.0.0/8]}, {ae_title: 'CT*'}, {ae_title: MR}]}\n"
    )
    access = parse(text).access
    assert [getattr(access.caller(title), "ae_title", None) for title in ("CT1", "CT2", "ct1", "MR")] == [
        "CT1",
        "CT*",
        None,
        "MR",
    ]


# archives that are asked

_WORKSTATION = """\
query:
  peers:
    pacs: {ae_title: PACS, host: localhost, port: 104}
    web: {dicomweb: "https://pacs.example/dicom-web", credentials: web.txt}
"""


def asking(text: str) -> config.Workstation:
    return config.parse_workstation(text, Path("/etc/node/node.yaml"))


def test_a_workstation_needs_no_node() -> None:
    loaded = asking(_WORKSTATION)
    assert loaded.peers == ("pacs", "web")
    assert loaded.query.ae_title is None
    assert loaded.query.peers["web"].credentials == Path("/etc/node/web.txt")


def test_the_file_of_a_node_serves_as_well_and_its_destinations_can_be_asked() -> None:
    loaded = asking(
        _MINIMAL + "query: {peers: {pacs: {retrieve: move}, other: {ae_title: O, host: h, port: 1}}}"
    )
    assert loaded.peers == ("pacs", "other")
    pacs = loaded.peer("pacs")
    assert pacs is not None
    assert (pacs.ae_title, pacs.host, pacs.port, pacs.retrieve) == ("PACS", "localhost", 104, "move")
    assert loaded.query.ae_title == "NODE"
    assert asking(_MINIMAL).peer("pacs") == config.QueryPeer(ae_title="PACS", host="localhost", port=104)
    assert loaded.peer("nobody") is None


def test_a_file_with_half_a_node_is_a_nodes_file() -> None:
    with pytest.raises(ConfigError, match="routes: is missing"):
        asking(_WORKSTATION + "node: {id: n, ae_title: NODE}\n")


@pytest.mark.parametrize(
    ("peer", "said"),
    [
        ("{retrieve: move}", "has no address, and there is no destination of this name"),
        ("{ae_title: A, host: h}", "all of ae_title, host, port are needed"),
        ("{dicomweb: 'https://x/y', ae_title: A}", "takes no ae_title"),
        ("{dicomweb: 'https://x/y', retrieve: get}", "takes no retrieve"),
        ("{ae_title: A, host: h, port: 1, credentials: c}", "no dicomweb to go with credentials"),
        ("{dicomweb: 'https://user:secret@x/y'}", "match pattern"),
        ("{ae_title: A, host: h, port: 1, level: frame}", "'study', 'series' or 'image'"),
    ],
)
def test_a_peer_is_of_one_kind_and_has_a_whole_address(peer: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        asking(f"query: {{peers: {{x: {peer}}}}}")
    assert said in str(caught.value)


def test_a_mistake_in_the_only_route_is_no_lack_of_routes() -> None:
    found = problems(_MINIMAL.replace("role: protect", "rol: protect"))
    assert found == [
        "6: routes[0].role: is missing",
        "6: routes[0].rol: is unknown here; did you mean role?",
    ]


def test_no_route_at_all_is() -> None:
    (found,) = problems(_MINIMAL.partition("routes:")[0] + "routes: []\n")
    assert found.startswith("5: routes: ")


_CLUSTER = """\
cluster:
  name: radiology
  database: {url: "postgresql://node@db.example/dicom_node", password_file: secret}
  broker: {url: "amqp://node@mq.example/dicom-node"}
  blobs: {kind: directory, directory: /srv/blobs}
"""


def test_without_the_section_a_node_is_no_cluster() -> None:
    assert parse(_MINIMAL).cluster is None
    assert parse(_MINIMAL + "cluster: null\n").cluster is None


def test_a_cluster_does_everything_unless_told_otherwise() -> None:
    cluster = parse(_MINIMAL + _CLUSTER).cluster
    assert cluster is not None
    assert cluster.parts == ("receive", "work", "forward", "lead")
    assert cluster.database.password_file == Path("/etc/node/secret")
    assert cluster.reconcile_s == 5.0


def test_the_example_of_a_cluster_loads_and_shows_only_defaults() -> None:
    text = _CLUSTER_EXAMPLE.read_text("utf-8")
    required = """
cluster:
  name: radiology
  database: {url: "postgresql://dicom-node@db.example:5432/dicom_node"}
  broker: {url: "amqp://dicom-node@mq.example:5672/dicom-node"}
  blobs: {kind: directory, directory: /srv/dicom-node/blobs}
"""
    assert parse(_MINIMAL + text) == parse(_MINIMAL + required)


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ("node@db.example", "node:hunter2@db.example", "password_file"),
        ("amqp://node@", "amqp://node:hunter2@", "password_file"),
        ("postgresql://", "mysql://", "postgresql://USER@HOST"),
        ("postgresql://node@db.example", "postgresql://node@db.example:port", "write postgresql://"),
        ("/dicom_node", "/", "names no database"),
        ("amqp://node@", "redis://node@", "amqp://USER@HOST"),
        ("directory: /srv/blobs", "bucket: blobs", "needs directory"),
        ("kind: directory, directory: /srv/blobs", "kind: s3", "needs bucket"),
        ("kind: directory", "kind: s3, bucket: blobs", "directory does not go with kind: s3"),
        ("name: radiology", "name: Radiology", "name"),
        ("name: radiology", "name: radiology\n  parts: []", "parts"),
        ("name: radiology", "name: radiology\n  parts: [work, work]", "named twice: work"),
    ],
)
def test_a_cluster_that_cannot_work_is_refused_without_a_password(before: str, after: str, said: str) -> None:
    found = problems(_MINIMAL + _CLUSTER.replace(before, after, 1))
    assert any("cluster" in problem and said in problem for problem in found), found
    assert "hunter2" not in "".join(found)
