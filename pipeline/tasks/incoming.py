"""Incoming: Pipedrive → Hull. The three tasks; what each does stands in a file of its own."""

from __future__ import annotations

from celery import Task

from db.batch import ClaimedBatch
from pipeline.sync.incoming import load as incoming_load
from pipeline.sync.incoming.deletions import load_departures
from pipeline.sync.incoming.extract_changes import extract_changes
from pipeline.sync.incoming.extract_page import extract_page
from pipeline.sync.incoming.transform import transform_batch
from pipeline.sync.stage import run_stage
from pipeline.tasks.app import app


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
    incoming_load.load_batch(batch)
