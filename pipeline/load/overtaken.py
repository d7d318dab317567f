"""Counts anew the records of a page that another worker turned out to have been faster with."""

from __future__ import annotations

from db.page import Overtaken
from pipeline.load.incoming import CHANGED, LINKED, SAME, PagePlan


def count_anew(plan: PagePlan, overtaken: Overtaken) -> None:
    """Whoever was faster has counted them as new or changed: once is enough."""
    for sending in plan.sendings:
        pipedrive_id = sending.record["pipedrive_id"]
        if pipedrive_id in overtaken.told_before or pipedrive_id in overtaken.moved_on:
            plan.counters[CHANGED if sending.effect == LINKED else sending.effect] -= 1
            plan.counters[SAME if pipedrive_id in overtaken.told_before else "skipped"] += 1
