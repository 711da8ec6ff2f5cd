"""Every source module has a test module of its name; what has none is listed here with the reason."""

from __future__ import annotations

import pytest

from tests.architecture.repository import ROOT, modules

_PIXELS = "one contract, load and store, that test_pixels.py holds from outside for every encoding"
_STORES = "one contract, that of a store of objects; tests/conformance/test_blob_stores.py holds all to it"
_CONFIG = "one contract, parse, that test_config.py holds from outside"
_COMMAND = "run as a subprocess by tests/acceptance"

#: module -> why it has no test module of its own
ENGINE_EXCEPTIONS = {
    "__init__": "re-exports; see test_public_names.py",
    "errors": "classes without code",
    "jit": "one call of numba, run by every compiled loop",
    "profile": "numbers; the golden vectors hold them",
    "carrier.__init__": "a docstring",
    "payload.__init__": "a docstring",
    "pixels.__init__": "re-exports; see test_public_names.py",
    **{
        f"pixels.{name}": _PIXELS
        for name in (
            "codec",
            "codestream",
            "elements",
            "files",
            "fragments",
            "header",
            "image",
            "jpeg_lossless",
            "native",
            "reason",
            "run_length",
            "store",
            "syntax",
        )
    },
    "segment.__init__": "a table; test_segment.py",
    "segment.whole": "a constant map; test_segment.py",
}

NODE_EXCEPTIONS = {
    "__init__": "a version; see test_version.py",
    "__main__": "two lines; tests/interop runs it",
    "errors": "classes without code; see test_exit_codes.py",
    "dimse.__init__": "two constants, part of what test_scp.py compares byte for byte",
    "audit.__init__": "a docstring",
    "audit.codes": "a table; test_audit_message.py holds it against pydicom's",
    "audit.events": "classes without code; test_audit_message.py",
    "cli.__init__": "test_cli.py",
    "cli.audit": "test_cli_trail.py, beside what it shows",
    "cli.options_keys": "arguments; test_cli.py and tests/acceptance",
    "cli.options_ring": "arguments; test_cli.py and tests/acceptance",
    "cli.options_query": "arguments only; test_cli_asking.py",
    "cli.sending": "test_cli_query.py",
    "item": "two records without code; test_judge.py",
    "pages.__init__": "a docstring",
    "dispatch.__init__": "a docstring",
    "blobs.__init__": "a docstring",
    "blobs.port": "protocols without code",
    **{f"blobs.{name}": _STORES for name in ("bench", "directory", "s3", "shared")},
    "ledger.__init__": "its parts put together; test_ledger.py",
    **{
        f"config.{name}": _CONFIG
        for name in (
            "__init__",
            "auditing",
            "clustering",
            "committing",
            "document",
            "kinds",
            "marking",
            "querying",
            "reading",
            "receiving",
            "references",
            "routing",
            "securing",
            "sending",
            "watching",
            "whole",
            "words",
        )
    },
    **{
        f"cli.{name}": _COMMAND
        for name in (
            "access",
            "config",
            "keys",
            "options_keys",
            "options_verify",
            "pages",
            "protect",
            "recover",
            "restoring",
            "selftest",
            "serve",
            "verify",
        )
    },
}


def expected(module: str) -> str:
    """`payload.record` -> `test_record.py`, `cli.files` -> `test_cli_files.py`: some share names."""
    package, _, leaf = module.rpartition(".")
    return f"test_{package}_{leaf}.py" if package in ("audit", "cli", "ledger") else f"test_{leaf}.py"


@pytest.mark.parametrize(
    ("package", "folder", "exceptions"),
    [("blessmark", "engine", ENGINE_EXCEPTIONS), ("dicom_node", "node", NODE_EXCEPTIONS)],
)
def test_every_module_has_its_test_module(package: str, folder: str, exceptions: dict[str, str]) -> None:
    present = {path.name for path in (ROOT / "tests" / "unit" / folder).glob("test_*.py")}
    untested = {name for name in modules(package) if expected(name) not in present} - set(exceptions)
    assert untested == set()


@pytest.mark.parametrize(
    ("package", "exceptions"), [("blessmark", ENGINE_EXCEPTIONS), ("dicom_node", NODE_EXCEPTIONS)]
)
def test_no_exception_is_stale(package: str, exceptions: dict[str, str]) -> None:
    assert set(exceptions) <= set(modules(package))


def test_no_test_module_has_lost_its_source() -> None:
    """A renamed module takes its tests along; parts of the engine that are packages are tested whole."""
    engine = {expected(name) for name in modules("blessmark")} | {"test_pixels.py", "test_segment.py"}
    node = {expected(name) for name in modules("dicom_node")} | {
        "test_cli.py",
        "test_config.py",
        "test_ledger.py",
    }
    for folder, known in (("engine", engine), ("node", node)):
        present = {path.name for path in (ROOT / "tests" / "unit" / folder).glob("test_*.py")}
        assert present - known == set()
