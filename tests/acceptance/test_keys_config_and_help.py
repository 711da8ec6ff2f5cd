"""The commands that touch no image."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.acceptance.conftest import run

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
    assert listed[1].split()[3] in exported.stdout
    assert len(one.stdout.strip()) == 64
    assert run("keys", "export-public", "--id", "3", *held).returncode == 1
    secrets = [line.split()[3] for line in held[1].read_text().splitlines() if line.startswith("signing ")]
    shown = "".join(done.stdout + done.stderr for done in (*made, revoked, exported, one)) + str(listed)
    assert not any(secret in shown for secret in secrets)


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
    broken.write_text(_EXAMPLE.read_text("utf-8").replace("  port: 11112\n  # Assoc", "  prot: 1\n  # Assoc"))
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


@pytest.mark.parametrize("command", ["serve", "protect", "verify", "recover", "keys", "config", "selftest"])
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
