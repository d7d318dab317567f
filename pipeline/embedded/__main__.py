"""The embedded servers by hand: `python -m pipeline.embedded status|hold|stop|remove`.

`hold` starts them and keeps them until it is interrupted, for a look or a dump while the pipeline is down.
"""

from __future__ import annotations

import signal
import sys

from pipeline import embedded
from pipeline.embedded import EmbeddedError
from pipeline.settings import Settings, SettingsError, settings


def main(argv: list[str]) -> int:
    """Run one command; 0 done, 1 the work failed, 2 bad usage."""
    commands = {"status": _status, "hold": _hold, "stop": embedded.stop, "remove": embedded.remove}
    if len(argv) != 1 or argv[0] not in commands:
        sys.stderr.write(f"usage: python -m pipeline.embedded {'|'.join(commands)}\n")
        return 2
    try:
        commands[argv[0]](settings())
    except (EmbeddedError, SettingsError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


def _status(chosen: Settings) -> None:
    found = embedded.status(chosen)
    for name, state in found.items():
        answer = "answers" if state.ready else "does not answer"
        sys.stdout.write(f"{name}: {answer}, process {state.server_pid}, keeper {state.keeper_pid}\n")
    if not found:
        sys.stdout.write(f"no embedded server runs for DATA_DIR={chosen.data_dir}\n")


def _hold(chosen: Settings) -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM))
    servers = embedded.ensure(chosen)
    if embedded.status(chosen):
        sys.stdout.write(f"{servers.database_url}\n{servers.redis_url}\nuntil interrupted\n")
        sys.stdout.flush()
        signal.sigwait((signal.SIGINT, signal.SIGTERM))


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
