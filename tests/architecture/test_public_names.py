"""What the engine promises to export is there, and importing the promise costs nothing."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
import types

import blessmark
from blessmark import pixels


def test_every_name_that_the_engine_lists_is_there() -> None:
    """The docstring lists `module.function` or `module`, each in the module of its name."""
    assert blessmark.__doc__ is not None
    listed = re.findall(r"^    ([a-z]+)(?:\.([a-z]+))?  ", blessmark.__doc__, re.M)
    assert {"embed", "verify", "recover", "pixels", "types"} <= {module for module, _ in listed}
    for module, function in listed:
        found = importlib.import_module(f"blessmark.{module}")
        assert not function or callable(getattr(found, function))


def test_the_public_names_of_pixels_are_exactly_those_listed() -> None:
    public = {
        name
        for name, value in vars(pixels).items()
        if not name.startswith("_") and not isinstance(value, types.ModuleType)
    }
    # a function hides the module of its name that holds it; importing that module by its path still works
    assert set(pixels.__all__) == public


def test_importing_either_package_loads_no_library() -> None:
    script = "import sys, blessmark, dicom_node; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60
    )
    assert not {"numpy", "numba", "pydicom", "cryptography"} & set(done.stdout.split())
