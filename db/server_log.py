"""Keep values of records out of PostgreSQL's log.

psycopg2 writes the values into a statement's text, and the server logs the text of a statement that fails, takes long
or waits for a lock; the DETAIL of a violated constraint repeats the values too. Our sessions switch all of that off if
the server permits it: for a superuser, and since PostgreSQL 15 for a role with GRANT SET ON PARAMETER. Errors are in
our own log, by class and SQLSTATE.
Source: https://www.postgresql.org/docs/18/runtime-config-logging.html
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from sqlalchemy import bindparam, text
from sqlalchemy.orm import Session
from sqlalchemy.types import ARRAY, Text

QUIET: Final[Mapping[str, str]] = {
    "log_min_messages": "log",  # above ERROR, with messages such as `invalid input syntax for type integer: "…"`
    "log_min_error_statement": "panic",
    "log_error_verbosity": "terse",
    "log_statement": "none",
    "log_min_duration_statement": "-1",
    "log_min_duration_sample": "-1",
    "log_transaction_sample_rate": "0",
    "log_parameter_max_length": "0",
}
"""Settings that only a superuser, or a role that was granted them, may change for its session → value."""
QUIET_FOR_ANYBODY: Final[Mapping[str, str]] = {"log_parameter_max_length_on_error": "0"}
"""Settings that every role may change."""

_GRANTED = """
    SELECT set_config(s.name, s.value, false) FROM unnest(%(names)s, %(values)s) AS s (name, value)
     WHERE has_parameter_privilege(s.name, 'SET')"""
_FOR_SUPERUSERS = """
    SELECT set_config(s.name, s.value, false) FROM unnest(%(names)s, %(values)s) AS s (name, value)
     WHERE current_setting('is_superuser') = 'on'"""
_LOUD = text("""
    SELECT s.name FROM unnest(:names, :values) AS s (name, value)
     WHERE current_setting(s.name) <> s.value ORDER BY s.name""").bindparams(
    bindparam("names", type_=ARRAY(Text)), bindparam("values", type_=ARRAY(Text))
)


def keep_values_out(connection: Any) -> None:
    """Switch off what this session may; the connection is in autocommit."""
    values = {"names": list(QUIET), "values": list(QUIET.values())}
    with connection.cursor() as cursor:
        cursor.execute(_GRANTED if connection.server_version >= 150_000 else _FOR_SUPERUSERS, values)


def loud_settings(session: Session) -> list[str]:
    """Return the settings that allow values of records in the server's log; empty if there are none."""
    return list(session.scalars(_LOUD, {"names": list(QUIET), "values": list(QUIET.values())}))
