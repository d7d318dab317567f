"""Identifiers in the one spelling by which they are looked up; fields that were lost before the field list was read

E-mails, domains and external ids that were stored with invisible characters, in full width or with an international host written
out could not be found any more by the spelling of now. Only rows that are not plain ASCII, or hold `xn--`, are changed.

Users and Accounts that were sent before Pipedrive's field list was read lost their mapped custom fields: they are sent once more,
as last reported, where the field exists.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0019"
down_revision = "0018"
branch_labels = None
depends_on = None

# As pipeline/domain/texts.py spells them; a migration does not change when that does.
NOTHING = re.compile(
    "[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164"
    "\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufff8\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
)

FOUND = """
    SELECT connector_key, entity, claim, value, pipedrive_id FROM {table}
     WHERE claim IN ('email', 'domain', 'external_id')
       AND (octet_length(value) <> char_length(value) OR claim <> 'external_id' AND value LIKE '%xn--%')"""
KNOWN_AS = """
    INSERT INTO known_as (connector_key, entity, claim, value, pipedrive_id)
    SELECT connector_key, entity, claim, t.spelled, pipedrive_id FROM unnest(CAST(:ks AS int[]), CAST(:es AS text[]),
           CAST(:cs AS text[]), CAST(:vs AS text[]), CAST(:ids AS bigint[]), CAST(:new AS text[]))
           AS t(connector_key, entity, claim, value, pipedrive_id, spelled)
    ON CONFLICT DO NOTHING"""
FORGET = """
    DELETE FROM known_as k USING unnest(CAST(:ks AS int[]), CAST(:es AS text[]), CAST(:cs AS text[]), CAST(:vs AS text[]),
           CAST(:ids AS bigint[])) AS t(connector_key, entity, claim, value, pipedrive_id)
     WHERE (k.connector_key, k.entity, k.claim, k.value, k.pipedrive_id)
         = (t.connector_key, t.entity, t.claim, t.value, t.pipedrive_id)"""
SPELL = """
    UPDATE claims SET value = :new
     WHERE connector_key = :k AND entity = :e AND claim = :c AND value = :v AND pipedrive_id = :id
       AND NOT EXISTS (SELECT 1 FROM claims o WHERE (o.connector_key, o.entity, o.claim, o.value) = (:k, :e, :c, :new))"""
GIVE_UP = (
    "DELETE FROM claims WHERE connector_key = :k AND entity = :e AND claim = :c AND value = :v AND pipedrive_id = :id"
)

WITHOUT = """
    SELECT DISTINCT e.connector_key, e.batch_id FROM sync_events e
     WHERE e.reason = 'field_missing' AND e.cause = 'settings' AND e.event IN ('outgoing.user.error', 'outgoing.account.error')
       AND EXISTS (SELECT 1 FROM field_definitions d, jsonb_array_elements(d.rows) f
                    WHERE d.connector_key = e.connector_key AND d.entity = e.entity
                      AND coalesce(f->>'field_code', f->>'key') = split_part(e.detail, ':', 1))"""
SEND = """
    INSERT INTO changes (connector_key, direction, entity, record_id, cause)
    SELECT DISTINCT e.connector_key, 'outgoing', e.entity, e.hull_id, 'definitions' FROM sync_events e
      JOIN snapshots s ON s.connector_key = e.connector_key AND s.entity = e.entity AND s.side = 'hull' AND s.record_id = e.hull_id
     WHERE e.batch_id = ANY(:batches) AND e.hull_id IS NOT NULL
       AND e.event IN ('outgoing.user.success', 'outgoing.account.success')
    ON CONFLICT DO NOTHING"""


def upgrade() -> None:
    connection = op.get_bind()
    for row, spelled in _misspelled(connection, "known_as"):
        scope = _columns(row)
        connection.execute(sa.text(KNOWN_AS), {**scope, "new": [spelled]})
        connection.execute(sa.text(FORGET), scope)
    for row, spelled in _misspelled(connection, "claims"):
        one = {"k": row.connector_key, "e": row.entity, "c": row.claim, "v": row.value, "id": row.pipedrive_id}
        if not connection.execute(sa.text(SPELL), {**one, "new": spelled}).rowcount:  # another record holds it
            connection.execute(sa.text(GIVE_UP), one)
            connection.execute(sa.text(KNOWN_AS), {**_columns(row), "new": [spelled]})
    batches = [row.batch_id for row in connection.execute(sa.text(WITHOUT)) if row.batch_id is not None]
    if batches:
        connection.execute(sa.text(SEND), {"batches": batches})


def downgrade() -> None:
    """The version before finds what is plain ASCII as well; what was spelled otherwise comes back with its next reading."""


def _misspelled(connection: sa.Connection, table: str) -> Iterator[tuple[Any, str]]:
    for row in connection.execute(sa.text(FOUND.format(table=table))).all():
        spelled = _spelled(row.claim, row.value)
        if spelled and spelled != row.value:
            yield row, spelled


def _columns(row: Any) -> dict[str, list[Any]]:
    return {
        "ks": [row.connector_key],
        "es": [row.entity],
        "cs": [row.claim],
        "vs": [row.value],
        "ids": [row.pipedrive_id],
    }


def _spelled(claim: str, value: str) -> str:
    if claim == "external_id":
        return _plain(value)
    mailbox, at, host = value.rpartition("@")
    return f"{_plain(_plain(mailbox).lower())}{at}{_host(host)}"


def _plain(text: str) -> str:
    return unicodedata.normalize("NFKC", NOTHING.sub("", unicodedata.normalize("NFKC", text))).strip()


def _host(host: str) -> str:
    return ".".join(_label(label) for label in _plain(host).lower().split("."))


def _label(label: str) -> str:
    try:
        shown = label.removeprefix("xn--").encode("ascii").decode("punycode") if label.startswith("xn--") else label
        shown = _plain(shown).lower()
        return shown if shown.isascii() else f"xn--{shown.encode('punycode').decode()}"
    except (UnicodeError, ValueError):
        return label
