"""Installed from a bundle on a bare Debian, run in the sandbox of its unit, upgraded, taken back, removed.

One story, told in the order of the tests: each goes on where the one before it ended.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.builders import ct, file_bytes
from tests.system.machine import ROOT, Machine, booted, bootstrap, bundle, until

pytestmark = pytest.mark.slow

_PEERS = ("systemd-container", "debootstrap", "dcmtk", "util-linux")
_CONFIG = "/etc/dicom-node/dicom-node.yaml"
_PACS_PORT = 11104


@dataclass(frozen=True)
class Site:
    """A machine with the node on it, and a folder of ours for what is sent and received."""

    machine: Machine
    folder: Path

    def send(self, seed: int) -> None:
        """One image from a modality; it has been acknowledged when this returns."""
        path = self.folder / f"{seed}.dcm"
        path.write_bytes(file_bytes(ct(256, 256, seed=seed)))
        done = self.machine.peer("/usr/bin/storescu", "-aec", "DICOMNODE", "127.0.0.1", "11112", str(path))
        assert done.returncode == 0, done.stderr

    def installer(self, *arguments: str, folder: str = "bundle") -> subprocess.CompletedProcess[str]:
        return self.machine.run(f"/srv/{folder}/install.sh", *arguments, seconds=300)

    def is_ready(self) -> bool:
        return self.machine.run("curl", "-s", "http://127.0.0.1:8080/readyz").stdout == "ready\n"

    def queued(self) -> str:
        return self.machine.must("dicom-node", "queue", "list", "--config", _CONFIG)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("site")
    subprocess.run(("sh", str(ROOT / "tools" / "install_peers.sh"), *_PEERS), check=True, timeout=600)
    root = folder / "root"
    bootstrap(root)
    if not (root / f"usr/bin/python{sys.version_info[0]}.{sys.version_info[1]}").exists():
        pytest.skip("Debian's Python is another one than that of these tests: its bundle would not fit")
    with tarfile.open(bundle(folder)) as packed:
        packed.extractall(root / "srv", filter="data")
    (made,) = (root / "srv").glob("dicom-node-*")
    made.rename(root / "srv" / "bundle")
    with booted(root, folder / "boot.log") as machine:
        yield Site(machine, folder)


def test_it_is_installed_from_the_bundle_without_a_package_index(site: Site) -> None:
    site.machine.must("sh", "-c", "cd /srv/bundle && sha256sum --quiet -c SHA256SUMS")
    done = site.installer("install")
    assert done.returncode == 0, done.stderr
    assert "copy that file to a safe place now" in done.stdout
    keyring = site.machine.root / "etc/dicom-node/keyring"
    assert (keyring.stat().st_uid, keyring.stat().st_mode & 0o777) == (0, 0o600)
    assert site.installer("install").returncode == 1, "twice is a mistake"


def test_the_first_configuration_needs_four_values_and_starts(site: Site) -> None:
    text = (site.machine.root / _CONFIG[1:]).read_text("utf-8")
    assert text.count("# <-") == 4
    edited = re.sub(r"host: \S+", "host: 127.0.0.1", text).replace("port: 104", f"port: {_PACS_PORT}")
    edited = edited.replace("    port: 11104", "    port: 11104\n    retry: {first_s: 1.0, cap_s: 2.0}")
    (site.machine.root / _CONFIG[1:]).write_text(edited, "utf-8")
    site.machine.must("dicom-node", "config", "check", _CONFIG)
    site.machine.must("systemctl", "start", "dicom-node")
    until(site.is_ready, 60, "its models are loaded")


def test_it_runs_as_nobody_in_particular_and_may_do_little(site: Site) -> None:
    said = site.machine.must("systemd-analyze", "security", "--no-pager", "dicom-node")
    exposure = re.search(r"Overall exposure level for dicom-node.service: ([0-9.]+)", said)
    assert exposure is not None
    assert float(exposure[1]) <= 2.0
    process = site.machine.root / f"proc/{site.machine.main_pid()}"
    status = site.machine.must("cat", f"/proc/{process.name}/status")
    assert re.search(r"CapEff:\t0+\n", status)
    assert "NoNewPrivs:\t1" in status
    assert "Seccomp:\t2" in status
    limits = site.machine.must("cat", f"/proc/{process.name}/limits")
    assert re.search(r"Max core file size +0 +0 ", limits), "a core would hold keys and patients"


def test_an_image_goes_through(site: Site) -> None:
    arrived = site.folder / "pacs"
    with site.machine.archive(arrived, _PACS_PORT):
        site.send(1)
        until(lambda: len(list(arrived.iterdir())) == 1, 60, "it has arrived")
        until(lambda: "delivered" in site.machine.journal(), 60, "the node knows")
    shutil.copy(next(arrived.iterdir()), site.machine.root / "srv/arrived.dcm")
    verdict = site.machine.must(
        "dicom-node", "verify", "/srv/arrived.dcm", "--keys", "/etc/dicom-node/keyring"
    )
    assert verdict.startswith("authentic")


def test_a_changed_configuration_is_taken_up_and_a_bad_one_is_not(site: Site) -> None:
    path = site.machine.root / _CONFIG[1:]
    good, before = path.read_text("utf-8"), site.machine.main_pid()
    path.write_text(good + "\nlog: {level: debug}\n", "utf-8")
    site.machine.must("systemctl", "reload", "dicom-node")
    until(lambda: " reloaded " in site.machine.journal(), 60, "it has been taken up")
    path.write_text(good + "\nsurprise: 1\n", "utf-8")
    site.machine.must("systemctl", "reload", "dicom-node")
    until(lambda: " reload-refused " in site.machine.journal(), 60, "it has been refused")
    path.write_text(good, "utf-8")
    assert site.machine.main_pid() == before
    until(
        lambda: site.machine.must("curl", "-s", "http://127.0.0.1:8080/readyz") == "ready\n", 60, "it works"
    )


def test_a_node_that_dies_is_started_again_and_has_what_it_acknowledged(site: Site) -> None:
    site.send(2)
    before = site.machine.main_pid()
    site.machine.must("kill", "-9", str(before))
    until(lambda: site.machine.main_pid() not in (0, before), 60, "another one runs")
    site.machine.must("systemctl", "start", "dicom-node")
    until(lambda: "queued" in site.queued(), 60, "what was acknowledged waits for the archive")


def test_a_node_that_hangs_is_ended_and_started_again(site: Site) -> None:
    dropped_in = site.machine.root / "etc/systemd/system/dicom-node.service.d"
    dropped_in.mkdir(parents=True)
    (dropped_in / "short.conf").write_text("[Service]\nWatchdogSec=3\n", "utf-8")
    site.machine.must("systemctl", "daemon-reload")
    site.machine.must("systemctl", "restart", "dicom-node")
    before = site.machine.main_pid()
    site.machine.must("sleep", "5")
    assert site.machine.main_pid() == before, "one that lives is left alone"
    site.machine.must("kill", "-STOP", str(before))
    until(lambda: site.machine.main_pid() not in (0, before), 60, "another one runs")
    assert "Watchdog timeout" in site.machine.journal()
    shutil.rmtree(dropped_in)
    site.machine.must("systemctl", "daemon-reload")
    site.machine.must("systemctl", "restart", "dicom-node")


def test_an_upgrade_and_the_way_back_keep_what_waits(site: Site) -> None:
    done = site.installer("upgrade")
    assert done.returncode == 0, done.stderr
    assert "has taken over" in done.stdout
    assert site.installer("status").stdout.count("(current)") == 1
    site.send(3)
    done = site.installer("rollback")
    assert done.returncode == 0, done.stderr
    arrived = site.folder / "pacs"
    with site.machine.archive(arrived, _PACS_PORT):
        until(lambda: len(list(arrived.iterdir())) == 3, 60, "both that waited have arrived")


def test_a_release_that_does_not_take_the_configuration_changes_nothing(site: Site) -> None:
    path = site.machine.root / _CONFIG[1:]
    good = path.read_text("utf-8")
    path.write_text(good + "\nsurprise: 1\n", "utf-8")
    before = site.installer("status").stdout
    done = site.installer("upgrade")
    assert done.returncode == 1
    assert "surprise: is unknown here" in done.stderr
    assert site.installer("status").stdout == before
    path.write_text(good, "utf-8")


def test_a_release_that_does_not_start_hands_back_to_the_one_before(site: Site) -> None:
    shutil.copytree(site.machine.root / "srv/bundle", site.machine.root / "srv/broken")
    (wheel,) = (site.machine.root / "srv/broken/wheels").glob("dicom_node-*.whl")
    _break(wheel)
    done = site.installer("upgrade", folder="broken")
    assert done.returncode == 1
    assert "goes on" in done.stderr
    until(site.is_ready, 60, "its models are loaded")
    site.send(4)


def _break(wheel: Path) -> None:
    """Make it a release that passes every check and ends as soon as it is started."""
    whole = wheel.with_suffix(".whole")
    wheel.rename(whole)
    with zipfile.ZipFile(whole) as old, zipfile.ZipFile(wheel, "w") as new:
        for name in old.namelist():
            content = old.read(name)
            if name == "dicom_node/cli/serve.py":
                content += b"\n\ndef run(args):\n    return 1\n"
            new.writestr(name, content)
    whole.unlink()


def test_a_stop_is_in_good_order(site: Site) -> None:
    site.machine.must("systemctl", "stop", "dicom-node")
    assert "stopped" in "".join(site.machine.journal().splitlines()[-4:])
    assert (
        site.machine.must("systemctl", "show", "-p", "Result", "--value", "dicom-node").strip() == "success"
    )


def test_removing_it_keeps_what_is_not_its_own(site: Site) -> None:
    done = site.installer("uninstall", "--purge")
    assert done.returncode == 1
    assert "not delivered yet and would be lost" in done.stderr
    assert (site.machine.root / "opt/dicom-node").exists()
    assert site.installer("uninstall").returncode == 0
    for kept in (
        "etc/dicom-node/keyring",
        "etc/dicom-node/dicom-node.yaml",
        "var/lib/dicom-node/ledger.sqlite",
    ):
        assert (site.machine.root / kept).exists()
    for gone in ("opt/dicom-node", "etc/systemd/system/dicom-node.service", "usr/local/bin/dicom-node"):
        assert not (site.machine.root / gone).is_symlink()
        assert not (site.machine.root / gone).exists()


def test_and_installing_it_again_goes_on_where_it_was(site: Site) -> None:
    assert site.installer("install").returncode == 0
    site.machine.must("systemctl", "start", "dicom-node")
    arrived = site.folder / "pacs"
    with site.machine.archive(arrived, _PACS_PORT):
        until(lambda: len(list(arrived.iterdir())) == 4, 60, "the last has arrived")
        until(lambda: "queued" not in site.queued(), 60, "nothing waits")
    site.machine.must("systemctl", "stop", "dicom-node")
    assert site.installer("uninstall", "--purge").returncode == 0
    for gone in ("etc/dicom-node", "var/lib/dicom-node"):
        assert not (site.machine.root / gone).exists()
