"""Shells fill themselves: an Organization that only a Person has named is read within a minute, a hundred to a request.

While a full fetch of Organizations runs they wait for it, for it reads them anyway. When they are more than a fifth of the
Organizations that are known, reading all is cheaper, and a full fetch is started.
"""

from __future__ import annotations

from db import id_mapping_writer, shell
from db import run as run_rows
from db.session import after_commit, transaction
from pipeline.domain.kinds import Entity
from pipeline.sync.runs import runs
from pipeline.tasks import wakeups
from pipeline.telemetry import logger

TOO_MANY = 5
"""Shells to known Organizations as one to this many: from there on everything is fetched."""


def fill(connector_key: int) -> bool:
    """One round for one connector; whether anything was set going."""
    entity = Entity.ORGANIZATION
    with transaction() as session:
        if run_rows.running_run(session, connector_key, entity, "full"):
            return False
        waiting, filled = shell.count_shells(session, connector_key, entity)
        if waiting * TOO_MANY <= filled:
            asked = shell.ask_for_shells(session, connector_key, entity)
            after_commit(session, lambda: wakeups.wake_control("dispatch"))
            logger().info("shells.asked", shells=asked)
            return asked > 0
    return _fetch_all(connector_key, entity, waiting)


def _fetch_all(connector_key: int, entity: Entity, waiting: int) -> bool:
    """The run is stored before the shells are left to it: a crash between the two causes a second check, and forgets none."""
    try:
        run_id = runs.start_run(connector_key, entity, cause="shells", changed_only=True)
    except runs.RunInProgress:
        return False
    with transaction() as session:
        id_mapping_writer.leave_shells_to_a_fetch(session, connector_key, entity)
    logger().info("shells.fetch", shells=waiting, run_id=run_id)
    return True
