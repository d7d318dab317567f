"""One call of an operation: who calls, about which connector, and the transaction that carries the audit entry."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Final

from sqlalchemy.orm import Session

from db import audit
from db import connector as connectors
from db.connector import Connector
from db.operator import Present
from db.session import after_commit, transaction
from pipeline.operations.errors import ConnectorNotFound, forbidden, impossible

AUDITED: Final = "audited"
NAMED: Final = 20
"""Maximum number of connectors that an error message names."""


@dataclass(slots=True, kw_only=True)
class Call:
    """Who calls, about which connector, and what the audit log records.

    caller        the operator; the command line's is an admin named after the system user
    known         the connector that the call is about, if the surface has looked it up already
    audit_action  of the operation; None for one that only reads or computes
    require_proof raises where the caller must first prove who they are, as before a change of who can log in; the command
                  line has nothing to prove
    """

    caller: Present
    known: Connector | None = None
    audit_action: str | None = None
    require_proof: Callable[[], None] = lambda: None
    is_audited: bool = False

    @property
    def connector(self) -> Connector:
        """The connector that the request names."""
        if self.known is None:
            raise LookupError("the request of this operation names no connector")
        return self.known

    def begin(self, connector: str | None, audit_action: str | None) -> Call:
        """Return the call of one operation; `connector` is the id or name that the request has. Raises OperationError."""
        known = self.known
        if connector is not None and (known is None or connector not in (known.name, known.id)):
            known = self.find_connector(connector)
        return replace(self, known=known, audit_action=audit_action, is_audited=False)

    def find_connector(self, id_or_name: str) -> Connector:
        """Return a connector that the caller may see, by its id or name. Raises OperationError (404)."""
        with transaction() as session:
            found = None if "\0" in id_or_name else connectors.find_connector(session, id_or_name)
            if found is not None and self.caller.may_see(found.key):
                return found
            seen = [each.name for each in connectors.all_connectors(session) if self.caller.may_see(each.key)]
        raise _no_connector(id_or_name, seen)

    def require_unlimited(self) -> None:
        """Raise OperationError (403) for an operator who is limited to some connectors."""
        if self.caller.connector_keys is not None:
            raise forbidden(
                "limited", "This shows every connector, but you may see only some of them.", "Ask an admin."
            )

    def require_active(self) -> None:
        """Raise OperationError (409) for a paused connector."""
        if self.connector.state != "active":
            raise impossible(f"{self.connector.name} is paused, so nothing would move.", "Resume it first.")

    @contextmanager
    def transaction(
        self, subject: str = "", *, why: str | None = None, detail: dict[str, Any] | None = None
    ) -> Iterator[Session]:
        """Open the transaction of an act. It commits the audit entry with the act; an act that fails leaves neither.

        Make no HTTP call in it: request remote data before, outside of any transaction.
        subject  what the act is about; by default the connector's name
        """
        with transaction() as session:
            yield session
            if AUDITED not in session.info:
                self.note(session, subject, why=why, detail=detail)

    def note(
        self,
        session: Session,
        subject: str = "",
        *,
        why: str | None = None,
        detail: dict[str, Any] | None = None,
        connector: Connector | None = None,
    ) -> None:
        """Write the audit entry in a transaction that the caller opened, or once the subject is known.

        connector  by default the one that the request names
        """
        about = connector or self.known
        if self.audit_action is None:
            raise LookupError("an operation without an audit action writes no audit entry")
        session.info[AUDITED] = True
        after_commit(session, self._has_audited)
        audit.note(
            session,
            self.caller.name,
            self.audit_action,
            subject or (about.name if about else ""),
            connector_key=about.key if about else None,
            why=why,
            detail=detail,
        )

    def found_nothing_to_do(self) -> None:
        """Write no audit entry: everything was already as requested."""
        self.is_audited = True

    def _has_audited(self) -> None:
        self.is_audited = True


def _no_connector(wanted: str, names: list[str]) -> ConnectorNotFound:
    sentence = f"There is no connector {wanted[:100]!r}."
    if not names:
        return ConnectorNotFound(sentence, "Add one first.")
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ConnectorNotFound(sentence, f"Choose one of: {', '.join(names[:NAMED])}{more}.")
