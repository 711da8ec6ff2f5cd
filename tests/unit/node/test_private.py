"""Files of secrets are nobody else's, and memory is in no core file."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from dicom_node import private
from dicom_node.errors import KeyFileError


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "secret"
    path.write_text("text\n")
    path.chmod(0o600)
    return path


def test_only_its_owner_may_touch_it(file: Path) -> None:
    assert private.read_text(file, "make it") == "text\n"
    for mode in (0o640, 0o604, 0o622):
        file.chmod(mode)
        with pytest.raises(KeyFileError, match=f"mode {mode:04o}.*chmod 600"):
            private.read_text(file, "make it")
    with pytest.raises(KeyFileError, match="does not exist; make it"):
        private.read_text(file.parent / "absent", "make it")


def test_what_the_service_manager_hands_over_may_look_as_if_a_group_read_it(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file.chmod(0o440)
    with pytest.raises(KeyFileError):
        private.read_text(file, "")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(file.parent))
    assert private.read_text(file, "") == "text\n"
    assert private.is_credential(file)
    assert not private.is_credential(file.parent / "folder" / "secret")
    file.chmod(0o644)
    with pytest.raises(KeyFileError):
        private.read_text(file, "")


def test_a_credential_that_was_not_handed_over_is_explained() -> None:
    with pytest.raises(KeyFileError, match="LoadCredential="):
        private.read_text(Path("credential:keyring"), "")


def test_a_process_leaves_no_core_file_and_shows_its_memory_to_nobody() -> None:
    """Not even through a pipe, which ignores the limit: the process itself is not dumpable."""
    script = (
        "import os, resource; from dicom_node import private\n"
        "assert not private.is_out_of_dumps()\n"
        "private.keep_out_of_dumps()\n"
        "assert private.is_out_of_dumps()\n"
        "print(resource.getrlimit(resource.RLIMIT_CORE), os.stat('/proc/self/mem').st_uid)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert done.stdout.startswith("(0, 0)")
