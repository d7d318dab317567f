"""Everything on one machine: the embedded servers, and the processes of `pipeline up` and `pipeline demo`.

servers    runs the embedded servers for all users; `python -m pipeline.local` does so manually
embedded   the programs of PostgreSQL and Valkey from their wheels, with their options
folders    places and owners of the servers' files
children   programs that are kept running, restarted when they die, and stopped in order; processes left by a crash
child      the small step in which a program of ours becomes another
programs   the pipeline's programs: their commands, ports and environments; Flower's password
system     combines it: everything runs while a block runs
example    the connector `demo`, between the sandbox's Pipedrive and its Hull, and the sandbox's control plane
errors     errors of a server, with the next step
"""

from __future__ import annotations
