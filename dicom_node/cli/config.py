"""`dicom-node config check FILE | schema`"""

from __future__ import annotations

import argparse
from pathlib import Path

from dicom_node import config
from dicom_node.errors import EXIT_DONE


def run(args: argparse.Namespace) -> int:
    """Check a configuration file, or print the schema for editors."""
    if args.action == "schema":
        print(config.json_schema(), end="")
        return EXIT_DONE
    print(f"{args.config}: good; {_contents(args.config)}")
    return EXIT_DONE


def _contents(path: Path) -> str:
    """What a checked file is for; raises ConfigError with every problem."""
    loaded = config.load_any(path)
    if isinstance(loaded, config.Workstation):
        return f"for dicom-node query alone; archives {', '.join(loaded.peers) or 'none'}"
    routes = ", ".join(f"{route.name} ({route.role})" for route in loaded.routes)
    return f"routes {routes}; destinations {', '.join(loaded.destinations) or 'none'}"
