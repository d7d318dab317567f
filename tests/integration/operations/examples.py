"""One request of each operation that changes something: prepares the world for it, and returns the fields of the request."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import Any

from pipeline.domain.kinds import Entity
from tests.authorising import installed_app
from tests.world import API_TOKEN, HULL_SECRET, World

Fields = dict[str, Any]


def deleted_person(world: World, _stack: ExitStack) -> Fields:
    """A Person that was deleted and still holds an e-mail."""
    world.company.create_person(name="Ada", emails=[{"value": "ada@acme.com", "primary": True}])
    world.fetch(Entity.PERSON)
    world.change_rows("UPDATE id_mappings SET state = 'deleted', deleted_at = now()")
    return {"entity": "person", "pipedrive_id": 1}


def nothing(_world: World, _stack: ExitStack) -> Fields:
    return {}


def with_an_app(world: World, stack: ExitStack) -> Fields:
    """An installation that has an app at Pipedrive."""
    stack.enter_context(installed_app(world))
    return {}


EXAMPLES: Mapping[str, Callable[[World, ExitStack], Fields]] = {
    "check_webhooks": nothing,
    "ensure_webhooks": nothing,
    "invite": with_an_app,
    "put_api_token": lambda _world, _stack: {"secret": API_TOKEN},
    "put_hull_secret": lambda _world, _stack: {"secret": HULL_SECRET},
    "release_claims": deleted_person,
    "try_telling": nothing,
}
"""Name of the operation → its example. The connector is added by the test."""
