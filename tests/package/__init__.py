"""The installed package: `python -m tests.package` builds it and runs it in an empty folder.

build   wheel and sdist from the files that Git knows, in a folder of their own
"""

from __future__ import annotations
