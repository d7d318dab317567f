"""Incoming: Pipedrive → Hull. The three tasks; what each does stands in a file of its own."""

from __future__ import annotations

from celery import Task

from db.batch import ClaimedBatch
from pipeline.tasks import load_page
from pipeline.tasks.app import app
from pipeline.tasks.departures import load_departures
from pipeline.tasks.extract_changes import extract_changes
from pipeline.tasks.extract_page import extract_page
from pipeline.tasks.stage import run_stage
from pipeline.tasks.transform_page import transform_batch


@app.task(name="incoming.extract", bind=True)
def extract(self: Task, batch_id: int) -> None:
    run_stage("extract", batch_id, self.request.id, extract_batch)


@app.task(name="incoming.transform", bind=True)
def transform(self: Task, batch_id: int) -> None:
    run_stage("transform", batch_id, self.request.id, transform_batch)


@app.task(name="incoming.load", bind=True)
def load(self: Task, batch_id: int) -> None:
    run_stage("load", batch_id, self.request.id, load_batch)


def extract_batch(batch: ClaimedBatch) -> None:
    """Read what the batch stands for, and stage it: a page of a run, or the records some changes name."""
    if batch.slice_id is None:
        extract_changes(batch)
    else:
        extract_page(batch)


def load_batch(batch: ClaimedBatch) -> None:
    """Bring to Hull what departed, then the records; what the former held is free for the latter."""
    if batch.slice_id is None:
        load_departures(batch)
    load_page.load_batch(batch)
