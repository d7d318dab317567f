"""Everything on one machine: the embedded servers, and the processes of `pipeline up` and `pipeline demo`."""

from __future__ import annotations
