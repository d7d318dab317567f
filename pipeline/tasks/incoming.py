"""Incoming: Pipedrive → Hull. The three tasks; their steps are in `pipeline.sync.incoming`."""

from __future__ import annotations

from celery import Task

from db.batch import ClaimedBatch
from pipeline.sync.incoming import load as incoming_load
from pipeline.sync.incoming.deletions import load_deletions
from pipeline.sync.incoming.extract import extract_changes, extract_page
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
    """Read the records of the batch, and stage them: a page of a run, or the records of some changes."""
    if batch.slice_id is None:
        extract_changes(batch)
    else:
        extract_page(batch)


def load_batch(batch: ClaimedBatch) -> None:
    """Send deletions to Hull, then the records; claims that the former released are free for the latter."""
    if batch.slice_id is None:
        load_deletions(batch)
    incoming_load.load_batch(batch)
