"""The log as a file: have a worker write it, and hand it out when it is written."""

from __future__ import annotations

from collections.abc import Sequence

from werkzeug.wrappers import Response

from db import audit
from db.connector import Connector
from db.event_log import EventFilter
from db.log_export import LogExport, find_export
from db.session import transaction
from pipeline.jobs import log_exports
from pipeline.web.console.guard import who


def order(
    connector: Connector, kind: str, wanted: EventFilter, before_id: int | None, *, chosen: Sequence[str]
) -> LogExport:
    """Have a file written; `chosen` are the parts of the filter, for the audit log. Raises: log_exports.TooMany."""
    with transaction() as session:
        export = log_exports.enqueue(session, connector, kind, wanted, before_id, by=who().name)
        subject = f"{export.file_name.rpartition('.')[2]}: {', '.join(chosen) or 'everything'}"
        audit.note(session, who().name, "logs.export", subject, connector_key=connector.key)
    return export


def find(connector: Connector, export_id: int) -> LogExport | None:
    """Return a file of this connector as it is now."""
    with transaction() as session:
        return find_export(session, connector.key, export_id)


def download(export: LogExport) -> Response:
    """Return a file that is written, as something to be stored."""
    answer = Response(log_exports.lines_of(export), content_type=f"{export.kind}; charset=utf-8")
    answer.headers["Content-Disposition"] = f'attachment; filename="{export.file_name}"'
    return answer
