"""The three tasks of an outgoing batch, from Hull to Pipedrive; their steps are in `pipeline.sync.outgoing`.

Pipedrive's answers are sent to Hull as the read-back batch, through the same transform and load as any page.
"""

from __future__ import annotations

from celery import Task

from pipeline.sync.outgoing.extract import extract_batch
from pipeline.sync.outgoing.load import load_batch
from pipeline.sync.outgoing.transform import transform_batch
from pipeline.sync.stage import run_stage
from pipeline.tasks.app import app


@app.task(name="outgoing.extract", bind=True)
def extract(self: Task, batch_id: int) -> None:
    run_stage("extract", batch_id, self.request.id, extract_batch)


@app.task(name="outgoing.transform", bind=True)
def transform(self: Task, batch_id: int) -> None:
    run_stage("transform", batch_id, self.request.id, transform_batch)


@app.task(name="outgoing.load", bind=True)
def load(self: Task, batch_id: int) -> None:
    run_stage("load", batch_id, self.request.id, load_batch)
