"""Ada and Acme on both sides, and what the guide's tests do with them in one line each."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

from flask.testing import FlaskClient

from db.session import transaction
from pipeline import connections
from pipeline import settings as settings_room
from pipeline.domain.kinds import Entity
from pipeline.wiring import open_connector
from tests.authorising import VOUCHED
from tests.deliveries import notify
from tests.system import SyncSystem
from tests.wsgi_adapter import WSGIAdapter

ADA = "ada@example.com"


def add_ada(system: SyncSystem, **members: Any) -> int:
    """A Person in Pipedrive."""
    emails = [{"value": ADA, "primary": True}]
    made = system.company.create_person(**{"name": "Ada", "emails": emails, **members})
    return int(made["id"])


def add_acme(system: SyncSystem, **members: Any) -> int:
    """An Organization in Pipedrive."""
    made = system.company.create_organization(**{"name": "Acme", "website": "https://www.acme.com/about", **members})
    return int(made["id"])


def fetch_all(system: SyncSystem) -> None:
    for entity in (Entity.ORGANIZATION, Entity.PERSON):
        system.fetch(entity)


def before_now(system: SyncSystem, entity: Entity, record_id: int) -> None:
    """Somebody made or changed this record some seconds ago: what changes in one second cannot be put in order."""
    record = system.company.record(entity.value, record_id)
    assert record is not None
    then = datetime.now(UTC) - timedelta(seconds=20)
    system.company.load(entity.value, {**record, "update_time": then.isoformat(timespec="seconds")})


def tell_hull(system: SyncSystem, kind: str, claims: dict[str, str], attributes: dict[str, Any]) -> None:
    """Another source writes to Hull."""
    with transaction() as session:
        hull = open_connector(session, system.connector_key).hull
    writer = hull.writer()
    write = writer.user_traits if kind == "user" else writer.account_traits
    hull.post_batches([write(claims, attributes)])


def in_hull(system: SyncSystem, kind: str) -> list[dict[str, Any]]:
    """Every User or Account."""
    return system.hull_records(kind)


def told(system: SyncSystem, seen: int = 0) -> list[dict[str, Any]]:
    """The attributes of each message that Hull received from message number `seen` on."""
    return [body for _, _, body in list(system.hull.received)[seen:]]


def user_changed(system: SyncSystem, person_id: int, *, segments: tuple[str, ...] = ("vip",), **more: Any) -> None:
    """Hull notifies that a User changed: its report as Hull has it, with `more` on top; then everything due is done.

    is_export  it was sent by hand
    changed    the attributes that Hull says have changed; all that are given, unless it is said otherwise
    """
    export, changed = more.pop("is_export", False), more.pop("changed", None)
    report = {**system.users()[person_id], **more}
    message = {"user": report, "account": {}, "segments": _segments(segments)}
    notify(system, message | _changes("user", changed or more), is_export=export, key=f"user {more}")
    system.work()


def press(client: FlaskClient, button: str) -> Any:
    """A person presses a button of Hull's dashboard, or opens a list there; what comes back."""
    answer = client.post(button, query_string=VOUCHED, json={})
    assert answer.status_code == 200, answer.text
    return answer.json


def save_in_hull(system: SyncSystem, **settings: Any) -> None:
    """A person saves the settings in Hull, which then says `ship:update`; what that asks for is done."""
    system.hull.connector["private_settings"] = settings
    with transaction() as session:
        system.module("sync.connectors.settings_change").enqueue_settings_sync(session, system.connector_key)
    system.run_jobs()


def account_changed(
    system: SyncSystem, organization_id: int, *, segments: tuple[str, ...] = ("vip",), **more: Any
) -> None:
    """The same of an Account."""
    export, changed = more.pop("is_export", False), more.pop("changed", None)
    report = {**system.accounts()[organization_id], **more}
    message = {"account": report, "account_segments": _segments(segments), **_changes("account", changed or more)}
    notify(system, message, channel="account:update", is_export=export, key=f"account {more}")
    system.work()


def _segments(ids: tuple[str, ...]) -> list[dict[str, str]]:
    return [{"id": name, "name": name} for name in ids]


def _changes(of: str, names: Iterable[str]) -> dict[str, Any]:
    return {"changes": {"is_new": False, of: {name: [None, "new"] for name in names}}}


def outcomes(system: SyncSystem) -> list[tuple[str, str | None]]:
    """(event, reason) of everything outgoing."""
    return [(event, reason) for event, reason, _ in system.events() if event.startswith("outgoing")]


@contextmanager
def reached_at(system: SyncSystem, host: str) -> Iterator[None]:
    """Hull's files are at this host meanwhile, which is one that may be asked for them."""
    before = settings_room.settings()
    session = connections.http_session()
    session.mount(f"http://{host}", WSGIAdapter(system.hull_app.wsgi_app))
    settings_room.use(before.replace(hull_export_hosts=(host,)))
    connections.use_http(lambda: session)
    try:
        yield
    finally:
        settings_room.use(before)
