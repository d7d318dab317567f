"""Control the embedded servers manually: `python -m pipeline.local status|hold|stop|remove`.

`hold` runs them until it is interrupted, or, with a process id after it, until that process ends: for a look or
a dump while the pipeline is down, for manually started processes, and for test runs.
"""

from __future__ import annotations

import os
import sys

from pipeline.local import servers
from pipeline.local.errors import EmbeddedError
from pipeline.local.interrupts import Interrupts
from pipeline.settings import Settings, SettingsError, settings

COMMANDS = ("status", "hold", "stop", "remove")


def main(argv: list[str]) -> int:
    """Run one command; 0 done, 1 the work failed, 2 bad usage."""
    command, *more = argv or [""]
    if command not in COMMANDS or (more and not (command == "hold" and len(more) == 1 and more[0].isdigit())):
        sys.stderr.write(f"usage: python -m pipeline.local {'|'.join(COMMANDS)}\n")
        return 2
    try:
        if command == "hold":
            _hold(settings(), int(more[0]) if more else None)
        else:
            {"status": _status, "stop": servers.stop, "remove": servers.remove}[command](settings())
    except (EmbeddedError, SettingsError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


def _status(chosen: Settings) -> None:
    found = servers.status(chosen)
    if found is None:
        sys.stdout.write(f"no embedded server runs for DATA_DIR={chosen.data_dir}\n")
        return
    sys.stdout.write(f"run by {found.holder.name}, process {found.holder.pid}\n")
    for name in found.holder.servers:
        answer = "answers" if name in found.ready else "does not answer"
        sys.stdout.write(f"{name}: {answer}, process {found.pids.get(name, 'unknown')}\n")


def _hold(chosen: Settings, with_process: int | None) -> None:
    interrupts = Interrupts(even_ignored=True)
    try:
        watched = [os.pidfd_open(with_process)] if with_process else []
    except ProcessLookupError:
        return
    try:
        with servers.serve(chosen, name="python -m pipeline.local hold") as found:
            sys.stdout.write(f"{found.database_url}\n{found.redis_url}\nuntil interrupted\n")
            sys.stdout.flush()
            interrupts.wait(watched)
    except KeyboardInterrupt:
        return


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
