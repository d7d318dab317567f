"""Write the status to Hull, which requests it by `/status`.

It is not documented whether Hull's dashboard uses the answer or the written status, so both are equal. Requests while one is due
are combined.
"""

from __future__ import annotations

from sqlalchemy.orm import Session

from db import connector as connectors
from db.job import ClaimedJob
from db.session import transaction
from pipeline import wiring
from pipeline.sync import job_queue
from pipeline.sync.connectors.status import status_of
from pipeline.sync.job_queue import DONE, STATUS, JobStep


def enqueue(session: Session, connector_key: int) -> None:
    """Start writing the status, once for any number of requests."""
    job_queue.enqueue(session, STATUS, str(connector_key), connector_key=connector_key)


def step(job: ClaimedJob) -> JobStep:
    """Compute the status, and send it to Hull. Raises: ConfigurationError, Retryable."""
    connector_key = job.connector_key or 0
    with transaction() as session:
        wired = wiring.open_connector(session, connector_key)
        found = status_of(session, connectors.get_connector(session, connector_key))
    wired.hull.put_status(found.status, found.messages)
    return DONE
