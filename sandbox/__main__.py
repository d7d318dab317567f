"""`python -m sandbox`: both systems, without the pipeline."""

from __future__ import annotations

import argparse
import sys

from sandbox.command import SandboxOptions, run


def main() -> int:
    """Parse the flags of `pipeline sandbox` and run it."""
    usual = SandboxOptions()
    parser = argparse.ArgumentParser(prog="python -m sandbox")
    parser.add_argument(
        "--json", action="store_true", help="accepted as everywhere; the line printed is JSON either way"
    )
    for name in ("persons", "organizations", "users", "accounts", "seed", "pipedrive_port", "hull_port"):
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, default=getattr(usual, name))
    parser.add_argument("--load", metavar="FILE", help="JSON lines of records to add")
    parser.add_argument("--faults", metavar="FILE", help="a JSON list of fault rules")
    parser.add_argument("--no-website", dest="website", action="store_false", help="Organizations without `website`")
    parser.add_argument("--burst-limit", type=int, help="requests per token within two seconds")
    parser.add_argument("--daily-budget", type=int, help="tokens a day")
    parser.add_argument(
        "--clock-factor", type=float, default=usual.clock_factor, help="company seconds to one of the wall"
    )
    parser.add_argument(
        "--clock-behind-s", type=float, default=usual.clock_behind_s, help="seconds before now at which it starts"
    )
    given = vars(parser.parse_args())
    given.pop("json")
    return run(SandboxOptions(**given))


if __name__ == "__main__":
    sys.exit(main())
