"""Writes the status to Hull, which asks for it by `/status`.

Which of the two its dashboard goes by is not public, so the answer and what is written say the same. What is asked while one is due
is written once.
"""

from __future__ import annotations

from sqlalchemy.orm import Session

from db import connector as connectors
from db import errand as errands
from db import failure as failures
from db.errand import ClaimedErrand
from db.session import transaction
from pipeline import wiring
from pipeline.sync.connectors.status import status_of
from pipeline.sync.job_queue import STATUS
from pipeline.sync.job_queue import ask as ask_errand


def ask(session: Session, connector_key: int) -> None:
    """Have the status written, once however often it is asked for."""
    ask_errand(session, STATUS, str(connector_key), connector_key=connector_key)


def write(errand: ClaimedErrand) -> None:
    """Look anew, and tell Hull. Raises: ConfigurationError, Retryable."""
    connector_key = errand.connector_key or 0
    with transaction() as session:
        wired = wiring.open_connector(session, connector_key)
        found = status_of(session, connectors.get_connector(session, connector_key))
    wired.hull.put_status(found.status, found.messages)
    with transaction() as session:
        failures.close_subject(session, connector_key, failures.control_subject(STATUS))
        errands.end(session, errand)
