"""`dicom-node config check FILE | schema`"""

from __future__ import annotations

import argparse

from dicom_node import config
from dicom_node.errors import EXIT_DONE


def run(args: argparse.Namespace) -> int:
    """Check a configuration file, or print the schema for editors."""
    if args.action == "schema":
        print(config.json_schema(), end="")
        return EXIT_DONE
    loaded = config.load(args.config)
    routes = ", ".join(f"{route.name} ({route.role})" for route in loaded.routes)
    print(f"{args.config}: good; routes {routes}; destinations {', '.join(loaded.destinations) or 'none'}")
    return EXIT_DONE
