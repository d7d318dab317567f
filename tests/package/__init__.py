"""The installed package: `python -m tests.package` builds it and runs it in an empty folder.

build      wheel and sdist from the files that Git knows, in a folder of their own
installed  an empty environment with the wheel in it: its commands, and processes that are stopped in the end
__main__   what is run there, and what must hold
"""

from __future__ import annotations
