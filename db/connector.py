"""Connectors, their credentials and the versions of their settings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from sqlalchemy import (
    ForeignKey,
    Identity,
    Integer,
    LargeBinary,
    UniqueConstraint,
    and_,
    delete,
    func,
    or_,
    select,
    update,
)
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Mapped, Session, mapped_column

from db.base import Base, Created, RowId
from db.statement import Statement
from db.token_ledger import IN_FORCE, TERMS, Terms, terms_of

API_TOKEN = "pipedrive_api_token"  # noqa: S105 - names of secrets, not secrets
ACCESS_TOKEN = "pipedrive_access_token"  # noqa: S105
REFRESH_TOKEN = "pipedrive_refresh_token"  # noqa: S105


class Connector(Base):
    """One Hull organization joined to one Pipedrive company.

    key  our own number, used in every other table
    id   the Hull connector id, 24 hex digits
    """

    __tablename__ = "connectors"

    key: Mapped[int] = mapped_column(Integer, Identity(), primary_key=True)
    id: Mapped[str] = mapped_column(unique=True)
    name: Mapped[str] = mapped_column(unique=True)
    hull_organization: Mapped[str]
    pipedrive_company: Mapped[str | None]
    """Origin of the company's API; it changes when the company renames its domain."""
    company_id: Mapped[int | None]
    """Pipedrive's id of the company: two authorisations with the same one are of the same company."""
    authorised_by: Mapped[int | None]
    """Pipedrive's id of the user who authorised the app by OAuth; only that user can revoke it."""
    default_currency: Mapped[str | None]
    """The currency that `users/me` returns: that of an amount without a currency."""
    state: Mapped[str] = mapped_column(server_default="active")
    """`active` or `paused`; the work of a paused connector is stored and waits."""
    pause_reason: Mapped[str | None]
    hull_settings: Mapped[dict[str, Any] | None]
    """The settings that Hull last returned: a difference from these is a change that was made in Hull."""
    created_at: Mapped[Created]


class Credential(Base):
    """Secrets, encrypted with the rotating keys; see `pipeline.vault`."""

    __tablename__ = "credentials"

    connector_key: Mapped[int] = mapped_column(Integer, ForeignKey("connectors.key"), primary_key=True)
    name: Mapped[str] = mapped_column(primary_key=True)
    """`hull_secret`, `webhook_…`, and of Pipedrive either API_TOKEN or both ACCESS_TOKEN and REFRESH_TOKEN."""
    ciphertext: Mapped[bytes] = mapped_column(LargeBinary)
    expires_at: Mapped[datetime | None]
    updated_at: Mapped[datetime] = mapped_column(server_default=func.now())


class SettingsVersion(Base):
    """One version of a connector's settings; the highest one is in force."""

    __tablename__ = "settings_versions"
    __table_args__ = (UniqueConstraint("connector_key", "version"),)

    id: Mapped[RowId]
    connector_key: Mapped[int] = mapped_column(Integer, ForeignKey("connectors.key"))
    version: Mapped[int] = mapped_column(Integer)
    document: Mapped[dict[str, Any]]
    author: Mapped[str]
    created_at: Mapped[Created]


def find_connector(session: Session, id_or_name: str) -> Connector | None:
    """Return the connector with this id or name; the id wins."""
    query = select(Connector).where(or_(Connector.id == id_or_name, Connector.name == id_or_name))
    return session.scalar(query.order_by(Connector.id != id_or_name))


@dataclass(frozen=True, slots=True)
class Marks:
    """Compiled settings and open clients of a connector are outdated when this value changes."""

    settings_id: int
    settings_version: int
    fields_read_at: datetime | None


_MARKS = Statement("""
    SELECT v.id, v.version, f.fetched_at
      FROM settings_versions v
      LEFT JOIN field_definitions f ON f.connector_key = v.connector_key AND f.entity = :entity
     WHERE v.connector_key = :key
     ORDER BY v.version DESC LIMIT 1""")


def marks(session: Session, connector_key: int, entity: str) -> Marks:
    """Return the settings and field definitions in force: one small query for every stage."""
    row = _MARKS.row(session, {"key": connector_key, "entity": entity})
    if row is None:
        raise LookupError(f"connector {connector_key} has no settings")
    return Marks(*row)


_ACCESS = Statement(f"""
    SELECT c.id, c.hull_organization, c.pipedrive_company, k.name, k.ciphertext,
           extract(epoch FROM k.expires_at - clock_timestamp())::float8 AS left_s,
           extract(epoch FROM k.expires_at - k.updated_at)::float8 AS life_s, {TERMS}
      FROM connectors c {IN_FORCE} LEFT JOIN credentials k ON k.connector_key = c.key
     WHERE c.key = :key""")  # noqa: S608 - put together from constants


@dataclass(frozen=True, slots=True)
class Access:
    """Addresses of a connector's two systems, and its encrypted secrets.

    expiry  name → (seconds left, total seconds), for the secrets that expire
    """

    id: str
    hull_organization: str
    pipedrive_company: str | None
    sealed: dict[str, bytes]
    expiry: dict[str, tuple[float, float]]
    terms: Terms


def access(session: Session, connector_key: int) -> Access:
    """Return everything that the clients of a connector need, by one query."""
    rows = _ACCESS.rows(session, {"key": connector_key})
    secrets = [row[3:7] for row in rows]
    sealed = {name: bytes(ciphertext) for name, ciphertext, _, _ in secrets if name is not None}
    expiry = {name: (left_s, life_s) for name, _, left_s, life_s in secrets if left_s is not None}
    connector_id, hull_organization, pipedrive_company = rows[0][:3]
    return Access(connector_id, hull_organization, pipedrive_company, sealed, expiry, terms_of(*rows[0][7:]))


def get_connector(session: Session, key: int) -> Connector:
    """Return the connector of that key. Raises NoResultFound if it does not exist."""
    return session.get_one(Connector, key)


def id_of(session: Session, key: int) -> str | None:
    """Return the connector's id, as in logs and Hull; None if it was removed."""
    return session.scalar(select(Connector.id).filter_by(key=key))


def lock_connector(session: Session, key: int) -> Connector:
    """Lock the connector's row until the transaction ends.

    The lock allows foreign key checks of other transactions, which could otherwise deadlock with this one.
    """
    return session.get_one(Connector, key, with_for_update={"key_share": True}, populate_existing=True)


def find_sealed(session: Session, connector_id: str, names: Sequence[str]) -> tuple[Connector, dict[str, bytes]] | None:
    """Return a connector by its id, and name → ciphertext for those of its secrets in `names`."""
    wanted = and_(Credential.connector_key == Connector.key, Credential.name.in_(names))
    joined = select(Connector, Credential.name, Credential.ciphertext).outerjoin(Credential, wanted)
    rows = session.execute(joined.where(Connector.id == connector_id)).all()
    if not rows:
        return None
    return rows[0][0], {name: bytes(ciphertext) for _, name, ciphertext in rows if name is not None}


def all_connectors(session: Session) -> list[Connector]:
    """Return all connectors, oldest first."""
    return list(session.scalars(select(Connector).order_by(Connector.key)))


class Names(NamedTuple):
    """A connector's id, and Pipedrive's id of its company; None if that is not known yet."""

    connector_id: str
    company_id: int | None


def names_of_all(session: Session) -> dict[int, Names]:
    """Return connector key → its ids."""
    rows = session.execute(select(Connector.key, Connector.id, Connector.company_id))
    return {row.key: Names(row.id, row.company_id) for row in rows}


def settings_in_force(session: Session, connector_key: int) -> SettingsVersion:
    """Return the newest version of the settings; a connector always has one."""
    newest = select(SettingsVersion).where(SettingsVersion.connector_key == connector_key)
    return session.scalars(newest.order_by(SettingsVersion.version.desc()).limit(1)).one()


def get_settings(session: Session, connector_key: int, version: int) -> dict[str, Any]:
    """Return the document of a version. Raises NoResultFound if it does not exist."""
    one = select(SettingsVersion).filter_by(connector_key=connector_key, version=version)
    return session.scalars(one).one().document


def settings_history(
    session: Session, connector_key: int, *, before: int | None = None, limit: int | None = None
) -> list[SettingsVersion]:
    """Return versions of the settings, newest first; only those older than `before` if it is given."""
    query = select(SettingsVersion).where(SettingsVersion.connector_key == connector_key)
    if before is not None:
        query = query.where(SettingsVersion.version < before)
    return list(session.scalars(query.order_by(SettingsVersion.version.desc()).limit(limit)))


def find_settings(session: Session, connector_key: int, version: int) -> SettingsVersion | None:
    """Return a version of the settings."""
    return session.scalar(select(SettingsVersion).filter_by(connector_key=connector_key, version=version))


def add_settings(session: Session, connector_key: int, document: dict[str, Any], *, author: str) -> SettingsVersion:
    """Store a new version, which is in force from now on. The connector's row is locked, so that two editors get two versions."""
    lock_connector(session, connector_key)
    last = session.scalar(select(func.max(SettingsVersion.version)).filter_by(connector_key=connector_key)) or 0
    version = SettingsVersion(connector_key=connector_key, version=last + 1, document=document, author=author)
    session.add(version)
    session.flush()
    return version


def default_currency(session: Session, connector_key: int) -> str | None:
    """Return the currency of an amount without one; None until it is read from Pipedrive."""
    return session.scalar(select(Connector.default_currency).filter_by(key=connector_key))


def keep_default_currency(session: Session, connector_key: int, currency: str) -> None:
    session.execute(update(Connector).where(Connector.key == connector_key).values(default_currency=currency))


def credentials_of(session: Session, connector_key: int) -> dict[str, bytes]:
    """Return name → ciphertext of a connector's secrets."""
    rows = session.execute(select(Credential.name, Credential.ciphertext).filter_by(connector_key=connector_key))
    return {row.name: row.ciphertext for row in rows}


def credentials_given(session: Session, connector_key: int) -> dict[str, datetime]:
    """Return name → when the secret was last set or renewed."""
    rows = session.execute(select(Credential.name, Credential.updated_at).filter_by(connector_key=connector_key))
    return {row.name: row.updated_at for row in rows}


def keep_credential(
    session: Session, connector_key: int, name: str, ciphertext: bytes, *, expires_in_s: float | None = None
) -> None:
    """Add or replace a secret; without `expires_in_s` it does not expire."""
    expires_at = None if expires_in_s is None else func.now() + timedelta(seconds=expires_in_s)
    row = insert(Credential).values(
        connector_key=connector_key, name=name, ciphertext=ciphertext, expires_at=expires_at
    )
    session.execute(
        row.on_conflict_do_update(
            index_elements=["connector_key", "name"],
            set_={"ciphertext": row.excluded.ciphertext, "expires_at": expires_at, "updated_at": func.now()},
        )
    )


def lock_credentials(session: Session, connector_key: int, *names: str) -> list[Credential]:
    """Return secrets of a connector, all of them without `names`, locked until the transaction ends.

    They are locked in the order of their names, so that two transactions do not deadlock.
    """
    query = select(Credential).filter_by(connector_key=connector_key).order_by(Credential.name)
    chosen = query.where(Credential.name.in_(names)) if names else query
    return list(session.scalars(chosen.with_for_update().execution_options(populate_existing=True)))


def drop_credentials(session: Session, connector_key: int, *names: str) -> None:
    """Delete secrets."""
    session.execute(delete(Credential).where(Credential.connector_key == connector_key, Credential.name.in_(names)))


def pause(session: Session, connector_key: int, reason: str) -> None:
    """Pause an active connector until an operator resumes it."""
    active = update(Connector).where(Connector.key == connector_key, Connector.state == "active")
    session.execute(active.values(state="paused", pause_reason=reason))


def remove_rows_of(session: Session, connector_key: int) -> None:
    """Delete a connector and all its rows, except those of the audit log."""
    for table in reversed(Base.metadata.sorted_tables):
        if "connector_key" in table.columns and table.name != "audit_log":
            session.execute(delete(table).where(table.c.connector_key == connector_key))
    session.execute(delete(Connector).where(Connector.key == connector_key))
