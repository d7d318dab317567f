"""Everything on this machine: `pipeline up` and, for its length, `pipeline demo`.

children   programs that are kept running, restarted when they die, and stopped in order
places     which programs these are: their commands, ports and environments; Flower's password
    child      the small step in which a program of ours becomes another
example    the connector `demo`, between the sandbox's Pipedrive and its Hull
house      puts them together: a house that is open as long as somebody needs it
"""

from __future__ import annotations
