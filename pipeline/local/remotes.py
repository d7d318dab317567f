"""Both remote systems as a person sees them: the sandbox's own controls, for the demo and for the example connector."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import orjson
import requests

from pipeline.domain.kinds import Entity

TIMEOUT_S = 30.0
Record = dict[str, Any]


class Remotes:
    """Edit Pipedrive like a salesperson and Hull like a marketer; read everything either holds."""

    def __init__(self, sandbox: Mapping[str, str]) -> None:
        self._pipedrive = f"{sandbox['pipedrive_url']}/__sandbox__"
        self._hull = f"{sandbox['hull_url']}/__sandbox__"

    def records(self, entity: Entity) -> dict[int, Record]:
        """Pipedrive id → Person or Organization, in API v2 shape."""
        return {row["id"]: row for row in _lines(f"{self._pipedrive}/export?entity={entity.value}")}

    def hull_records(self, entity: Entity) -> list[Record]:
        """Users or Accounts, as Hull holds them; a User names its Account by `account_id`."""
        return _lines(f"{self._hull}/export?entity={entity.hull}")

    def edit_record(self, entity: Entity, pipedrive_id: int, fields: Mapping[str, Any]) -> None:
        """Change a record in Pipedrive, like a user of its app; webhooks follow."""
        _post(f"{self._pipedrive}/edit", {"entity": entity.value, "id": pipedrive_id, "fields": dict(fields)})

    def delete_record(self, entity: Entity, pipedrive_id: int) -> None:
        """Delete a record in Pipedrive, like a user of its app; webhooks follow."""
        _post(f"{self._pipedrive}/delete", {"entity": entity.value, "id": pipedrive_id})

    def put_record(self, entity: Entity, record: Mapping[str, Any]) -> None:
        """Store a record exactly as it is, valid or not, without a webhook."""
        _post(f"{self._pipedrive}/raw?entity={entity.value}", record)

    def edit_hull_record(self, entity: Entity, hull_id: str, attributes: Mapping[str, Any]) -> None:
        """Change attributes in Hull, as a person or another connector would; a notification follows."""
        _post(f"{self._hull}/{entity.hull}s/{hull_id}", attributes)

    def notify(self, url: str) -> None:
        """Make Hull send every change to this address."""
        _post(f"{self._hull}/notify_url", {"url": url})


def answers(url: str, *, timeout_s: float) -> bool:
    """Return whether the address answers in time, with any answer."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        try:
            requests.get(url, timeout=2)
        except requests.RequestException:
            time.sleep(0.1)
        else:
            return True
    return False


def _lines(url: str) -> list[Record]:
    answer = requests.get(url, timeout=TIMEOUT_S)
    answer.raise_for_status()
    return [orjson.loads(line) for line in answer.content.splitlines()]


def _post(url: str, body: Mapping[str, Any]) -> None:
    requests.post(url, json=dict(body), timeout=TIMEOUT_S).raise_for_status()
