"""Print the requirements that setup.cfg names, for the lock: `requirements.py [extra ...]`."""

from __future__ import annotations

import configparser
import sys
from pathlib import Path


def main(extras: list[str]) -> None:
    config = configparser.ConfigParser()
    config.read(Path(__file__).parent.parent / "setup.cfg")
    wanted = [config["options"]["install_requires"], *(config["options.extras_require"][extra] for extra in extras)]
    sys.stdout.write("\n".join([*wanted, "setuptools"]).strip() + "\n")  # setuptools installs the project itself


main(sys.argv[1:])
