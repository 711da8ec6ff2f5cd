"""The commands that touch no image."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from dicom_node.users import Users
from tests import builders
from tests.acceptance.conftest import report, run, write
from tests.certificates import Authority

_EXAMPLE = Path(__file__).resolve().parents[2] / "config" / "dicom-node.example.yaml"
_HEAVY = {
    "numpy",
    "numba",
    "scipy",
    "pydicom",
    "pynetdicom",
    "cryptography",
    "sqlalchemy",
    "pydantic",
    "yaml",
    "rich",
}


def test_help_names_every_command_and_the_exit_codes() -> None:
    done = run("--help")
    assert done.returncode == 0
    for word in (
        "serve",
        "protect",
        "verify",
        "recover",
        "keys",
        "access",
        "config",
        "queue",
        "trace",
        "selftest",
        "Exit codes",
    ):
        assert word in done.stdout


def test_help_loads_no_library() -> None:
    """What makes `--help` answer at once; its time is not asserted, because a busy machine has none."""
    script = "import sys; from dicom_node.cli import parser; parser().format_help(); print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60
    )
    assert not _HEAVY & {name.partition(".")[0] for name in done.stdout.split()}


def test_the_version_is_that_of_the_package() -> None:
    from dicom_node import __version__

    assert run("--version").stdout == f"dicom-node {__version__}\n"


def test_a_second_key_becomes_current_and_no_secret_is_shown(tmp_path: Path) -> None:
    ring = tmp_path / "new folder" / "ring"
    said = [
        run("keys", "new", "--keys", ring),
        run("keys", "new", "--keys", ring),
        run("keys", "list", keys=ring),
    ]
    assert [done.returncode for done in said] == [0, 0, 0]
    listed = said[2].stdout.splitlines()
    assert [line.split()[0] for line in listed] == ["1", "2"]
    assert listed[1].endswith("current")
    secrets = [line.split()[3] for line in ring.read_text().splitlines() if line.startswith("key ")]
    shown = "".join(done.stdout + done.stderr for done in said)
    assert not any(secret in shown for secret in secrets)


def test_signing_keys_are_made_listed_exported_and_revoked(tmp_path: Path) -> None:
    """Without a key ring: a machine may sign, or hand out keys, that reads nothing."""
    held = ("--signing-keys", tmp_path / "new folder" / "signing")
    none = tmp_path / "no ring"
    made = [run("keys", "new-signing", *held) for _ in range(2)]
    listed = run("keys", "list", *held, keys=none).stdout.splitlines()
    revoked = run("keys", "revoke-signing", "1", *held)
    exported = run("keys", "export-public", *held)
    one = run("keys", "export-public", "--id", "2", "--format", "raw", *held)
    assert [done.returncode for done in (*made, revoked, exported, one)] == [0] * 5
    assert [line.split()[0] for line in listed] == ["1", "2"]
    assert [line.endswith("current") for line in listed] == [False, True]
    assert exported.stdout.count("BEGIN PUBLIC KEY") == 2
    assert exported.stdout.count("# revoked") == 1
    assert listed[1].split()[2] in exported.stdout
    assert len(one.stdout.strip()) == 64
    assert run("keys", "export-public", "--id", "3", *held).returncode == 1
    secrets = [line.split()[3] for line in held[1].read_text().splitlines() if line.startswith("signing ")]
    shown = "".join(done.stdout + done.stderr for done in (*made, revoked, exported, one)) + str(listed)
    assert not any(secret in shown for secret in secrets)


def test_a_ring_goes_into_a_safe_and_comes_back(tmp_path: Path) -> None:
    """Encrypted to a certificate; opened by this program, by openssl, and for nobody else."""
    ring, back = tmp_path / "ring", tmp_path / "back"
    safe = Authority(tmp_path / "ca", rsa_keys=True).issue("safe")
    run("keys", "new", "--keys", ring)
    run("keys", "new", "--keys", ring, "--from", "2999-01-01T00:00:00Z")
    export = tmp_path / "ring.p7m"
    done = run("keys", "export", "--keys", ring, "--to", safe.certificate, "--out", export)
    assert done.returncode == 0, done.stderr
    assert "key 1" not in export.read_text()
    assert run("keys", "import", export, "--keys", back).returncode == 2  # it says what is missing
    opened = ("--certificate", safe.certificate, "--private-key", safe.key)
    done = run("keys", "import", export, "--keys", back, *opened)
    assert done.stdout == f"{back}: added key 1, 2\n", done.stderr
    assert back.read_text() == ring.read_text()
    command = ["openssl", "cms", "-decrypt", "-inform", "PEM", "-in", export, "-inkey", safe.key]
    plain = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
    done = run("keys", "import", "-", "--keys", tmp_path / "third", input=plain)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "third").read_text() == ring.read_text()
    again = run("keys", "export", "--keys", ring, "--to", safe.certificate, "--out", export)
    assert (again.returncode, "File exists" in again.stderr) == (1, True)


def test_a_key_is_revoked_once_another_is_current(tmp_path: Path) -> None:
    ring = tmp_path / "ring"
    run("keys", "new", "--keys", ring)
    assert "dicom-node keys new" in run("keys", "revoke", "1", "--keys", ring).stderr
    run("keys", "new", "--keys", ring)
    assert run("keys", "revoke", "1", "--keys", ring).returncode == 0
    first, second = run("keys", "list", "--keys", ring).stdout.splitlines()
    assert " revoked 2" in first
    assert second.endswith("current")


def test_what_a_revoked_key_marked_is_never_authentic_without_a_word_of_it(tmp_path: Path) -> None:
    """In pixels and in a header alone; in lines, JSON and pages; and the exit code is that of a finding."""
    ring, marked = tmp_path / "ring", tmp_path / "marked"
    run("keys", "new", "--keys", ring)
    write(tmp_path / "images" / "ct.dcm", builders.ct(256, 256))
    write(tmp_path / "images" / "report.dcm", report())
    done = run("protect", tmp_path / "images", "--out", marked, "--uids", "derive", keys=ring)
    assert done.returncode == 0, done.stderr
    assert run("verify", marked, keys=ring).returncode == 0
    run("keys", "new", "--keys", ring)
    run("keys", "revoke", "1", "--keys", ring)
    pages = tmp_path / "pages"
    done = run("verify", "--html", pages, marked, keys=ring)
    assert done.returncode == 3
    assert done.stdout.count("its key was revoked 2") == 2
    assert "2 under a revoked key" in done.stdout
    told = json.loads(run("verify", "--json", marked, keys=ring).stdout)["instances"]
    assert all(each["key_revoked"].startswith("2") and each["finding"] == "authentic" for each in told)
    assert "was revoked" in (pages / "study-1.html").read_text("utf-8")


def test_a_passcode_comes_by_a_pipe_and_leaves_as_a_hash(tmp_path: Path) -> None:
    done = run("access", "user", "ct1", input="sesame\n")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("user ct1 scrypt:")
    assert "sesame" not in done.stdout
    file = tmp_path / "users"
    file.write_text(done.stdout)
    file.chmod(0o600)
    assert Users(file).knows("ct1", b"sesame")
    assert run("access", "user", "ct1", input="").returncode == 2
    assert run("access", "user", "two words", input="x\n").returncode == 1


def test_a_key_ring_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = run("keys", "new", "--keys", tmp_path / "file" / "ring")
    assert done.returncode == 1
    assert "choose another place with --keys" in done.stderr


def test_config_check_is_content_with_the_example() -> None:
    done = run("config", "check", _EXAMPLE)
    assert done.returncode == 0
    assert "protect-all (protect)" in done.stdout


def test_config_check_reports_every_problem_with_its_line(tmp_path: Path) -> None:
    broken = tmp_path / "node.yaml"
    broken.write_text(_EXAMPLE.read_text("utf-8").replace("  port: 11112\n  # TCP", "  prot: 1\n  # TCP"))
    broken.write_text(broken.read_text("utf-8").replace("role: protect", "role: burn"))
    done = run("config", "check", broken)
    assert done.returncode == 1
    assert "did you mean port?" in done.stderr
    assert "routes[0].role" in done.stderr


def test_serve_refuses_a_configuration_that_is_not_there(tmp_path: Path) -> None:
    done = run("serve", "--config", tmp_path / "nowhere.yaml")
    assert done.returncode == 1
    assert "cannot be read: No such file or directory" in done.stderr


def test_config_schema_is_json() -> None:
    assert json.loads(run("config", "schema").stdout)["title"] == "Config"


@pytest.mark.parametrize(
    "command", ["serve", "protect", "verify", "recover", "keys", "access", "config", "selftest"]
)
def test_every_command_has_help(command: str) -> None:
    done = run(command, "--help")
    assert done.returncode == 0
    assert done.stdout.startswith(f"usage: dicom-node {command}")


def test_no_command_is_a_usage_error() -> None:
    assert run().returncode == 2


def test_selftest_reproduces_the_packaged_vectors() -> None:
    done = run("selftest")
    assert done.returncode == 0, done.stderr
    assert "vectors reproduced bit for bit" in done.stdout
