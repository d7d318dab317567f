"""The connector that a path names, for modules that are not generated yet."""

from __future__ import annotations

from db.connector import Connector
from pipeline.operations.call import Call
from pipeline.operations.models import OfConnector
from pipeline.web.console.guard import who


def find(path: OfConnector) -> Connector:
    """Return the connector. Raises OperationError."""
    return Call(caller=who()).find_connector(path.connector)
