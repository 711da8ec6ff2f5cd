"""`dicom-node config check FILE [--dry-run] | schema`"""

from __future__ import annotations

import argparse

from dicom_node import config
from dicom_node.config import Config
from dicom_node.errors import EXIT_DONE, EXIT_ERROR


def run(args: argparse.Namespace) -> int:
    """Check a configuration file, try what it names, or print the schema for editors."""
    if args.action == "schema":
        print(config.json_schema(), end="")
        return EXIT_DONE
    loaded = config.load_any(args.config)
    if isinstance(loaded, config.Workstation):
        print(
            f"{args.config}: good, for dicom-node query alone; archives {', '.join(loaded.peers) or 'none'}"
        )
        return EXIT_DONE
    routes = ", ".join(f"{route.name} ({route.role})" for route in loaded.routes)
    print(f"{args.config}: good; routes {routes}; destinations {', '.join(loaded.destinations) or 'none'}")
    return _try(loaded) if args.dry_run else EXIT_DONE


def _try(loaded: Config) -> int:
    """Print what a dry run finds, a line each; an error if anything would not work."""
    from dicom_node.dry_run import Grade, dry_run

    problems = 0
    for found in dry_run(loaded):
        print(f"{found.grade:8} {found.what}: {found.said}")
        problems += found.grade is Grade.PROBLEM
    return EXIT_ERROR if problems else EXIT_DONE
