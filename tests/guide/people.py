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
from tests.world import World
from tests.wsgi_adapter import WSGIAdapter

ADA = "ada@example.com"


def add_ada(world: World, **members: Any) -> int:
    """A Person in Pipedrive."""
    emails = [{"value": ADA, "primary": True}]
    made = world.company.create_person(**{"name": "Ada", "emails": emails, **members})
    return int(made["id"])


def add_acme(world: World, **members: Any) -> int:
    """An Organization in Pipedrive."""
    made = world.company.create_organization(**{"name": "Acme", "website": "https://www.acme.com/about", **members})
    return int(made["id"])


def fetch_all(world: World) -> None:
    for entity in (Entity.ORGANIZATION, Entity.PERSON):
        world.fetch(entity)


def before_now(world: World, entity: Entity, record_id: int) -> None:
    """Somebody made or changed this record some seconds ago: what changes in one second cannot be put in order."""
    record = world.company.record(entity.value, record_id)
    assert record is not None
    then = datetime.now(UTC) - timedelta(seconds=20)
    world.company.load(entity.value, {**record, "update_time": then.isoformat(timespec="seconds")})


def tell_hull(world: World, kind: str, claims: dict[str, str], attributes: dict[str, Any]) -> None:
    """Another source writes to Hull."""
    with transaction() as session:
        hull = open_connector(session, world.connector_key).hull
    writer = hull.writer()
    write = writer.user_traits if kind == "user" else writer.account_traits
    hull.post_batches([write(claims, attributes)])


def in_hull(world: World, kind: str) -> list[dict[str, Any]]:
    """Every User or Account."""
    return world._export(kind)


def told(world: World, seen: int = 0) -> list[dict[str, Any]]:
    """The attributes of each message that Hull received from message number `seen` on."""
    return [body for _, _, body in list(world.hull.received)[seen:]]


def user_changed(world: World, person_id: int, *, segments: tuple[str, ...] = ("vip",), **more: Any) -> None:
    """Hull notifies that a User changed: its report as Hull has it, with `more` on top; then everything due is done.

    is_export  it was sent by hand
    changed    the attributes that Hull says have changed; all that are given, unless it is said otherwise
    """
    export, changed = more.pop("is_export", False), more.pop("changed", None)
    report = {**world.users()[person_id], **more}
    message = {"user": report, "account": {}, "segments": _segments(segments)}
    notify(world, message | _changes("user", changed or more), is_export=export, key=f"user {more}")
    world.work()


def press(door: FlaskClient, button: str) -> Any:
    """A person presses a button of Hull's dashboard, or opens a list there; what comes back."""
    answer = door.post(button, query_string=VOUCHED, json={})
    assert answer.status_code == 200, answer.text
    return answer.json


def save_in_hull(world: World, **settings: Any) -> None:
    """A person saves the settings in Hull, which then says `ship:update`; what that asks for is done."""
    world.hull.connector["private_settings"] = settings
    with transaction() as session:
        world.module("sync.connectors.settings_change").enqueue_settings_sync(session, world.connector_key)
    world.run_jobs()


def account_changed(world: World, organization_id: int, *, segments: tuple[str, ...] = ("vip",), **more: Any) -> None:
    """The same of an Account."""
    export, changed = more.pop("is_export", False), more.pop("changed", None)
    report = {**world.accounts()[organization_id], **more}
    message = {"account": report, "account_segments": _segments(segments), **_changes("account", changed or more)}
    notify(world, message, channel="account:update", is_export=export, key=f"account {more}")
    world.work()


def _segments(ids: tuple[str, ...]) -> list[dict[str, str]]:
    return [{"id": name, "name": name} for name in ids]


def _changes(of: str, names: Iterable[str]) -> dict[str, Any]:
    return {"changes": {"is_new": False, of: {name: [None, "new"] for name in names}}}


def outcomes(world: World) -> list[tuple[str, str | None]]:
    """(event, reason) of everything outgoing."""
    return [(event, reason) for event, reason, _ in world.events() if event.startswith("outgoing")]


@contextmanager
def reached_at(world: World, host: str) -> Iterator[None]:
    """Hull's files are at this host meanwhile, which is one that may be asked for them."""
    before = settings_room.settings()
    session = connections.http_session()
    session.mount(f"http://{host}", WSGIAdapter(world.hull_app.wsgi_app))
    settings_room.use(before.replace(hull_export_hosts=(host,)))
    connections.use_http(lambda: session)
    try:
        yield
    finally:
        settings_room.use(before)
