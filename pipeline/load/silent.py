"""Records that say nothing new to Hull, but may hold something new in fields that do not come to Hull.

They are kept as they are now, without a word: writes to Pipedrive are compared with what is kept, and what identifies a
record is looked up there.
"""

from __future__ import annotations

from collections.abc import Mapping

from db.page import PageRow
from db.snapshot import Compress
from pipeline.load.incoming import PagePlan


def rows_of(plan: PagePlan, bodies: Mapping[int, bytes], compress: Compress) -> list[PageRow]:
    """What is kept of each: its newest state, and what Hull holds of it as before."""
    rows = []
    for record, was in plan.silent:
        kept = compress(bodies[was.pipedrive_id])
        delivered = was.delivered or b"{}"
        rows.append(PageRow(was.pipedrive_id, record["version"], record["digest"], delivered, kept, None, None, 0))
    return rows


def ids_of(plan: PagePlan) -> list[int]:
    return [was.pipedrive_id for _, was in plan.silent]


def claims_of(plan: PagePlan) -> list[tuple[str, str, int]]:
    """What identifies them, as before: (claim, value, Pipedrive id)."""
    return [(*claim, was.pipedrive_id) for record, was in plan.silent for claim in record["claims"].items()]
