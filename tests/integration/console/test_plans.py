"""The pages of plans: the sentence first, every number a link, and who may press what."""

from __future__ import annotations

import json
from typing import Any

from markupsafe import escape

from db import connector as connectors
from db.session import transaction
from pipeline.domain.kinds import Entity
from tests.integration.console.conftest import ConsoleClient
from tests.journeys.planning import FIRST_NAME, hundred, known, with_more
from tests.system import SyncSystem, default_settings

__all__ = ["hundred", "known"]


def made(console: ConsoleClient, document: Any) -> str:
    answer = console.post("/c/acme/plans", document=json.dumps(document))
    assert answer.status_code == 303, answer.text
    return answer.headers["Location"]


def test_a_plan_is_made_read_and_applied_in_the_console(known: SyncSystem, admin: ConsoleClient) -> None:
    path = made(admin, with_more("incoming_user_attributes", FIRST_NAME))
    page = admin.text(path)

    assert "6 Users would be updated (pipedrive/given)" in page
    assert "Apply to 6 records" in page
    assert "<ins><bdi>Person</bdi></ins>" in admin.text(f"{path}/incoming/person?act=update")
    assert admin.text(f"{path}/incoming/person?field=pipedrive/given").count("<ins>") == 6
    assert admin.post(f"{path}/apply").status_code == 303
    known.work()
    assert known.users()[1]["pipedrive/given"] == "Person"
    assert "Applied by" in admin.text(path)
    entries = [row.action for row in known.rows("SELECT action FROM audit_log ORDER BY id")]
    assert entries[1:] == ["settings.plan", "settings.apply"]
    assert admin.post(f"{path}/apply").status_code == 409


def test_viewers_read_operators_plan_and_admins_apply(
    known: SyncSystem, viewer: ConsoleClient, operator: ConsoleClient
) -> None:
    assert known
    path = made(operator, with_more("incoming_user_attributes", FIRST_NAME))

    assert viewer.get(path).status_code == 200
    assert viewer.post("/c/acme/plans", document="{}").status_code == 403
    assert viewer.post(f"{path}/discard").status_code == 403
    assert operator.post(f"{path}/apply").status_code == 403
    assert operator.post(f"{path}/discard").status_code == 303
    assert known.rows("SELECT 1 FROM plan_items") == []
    assert operator.post(f"{path}/again").status_code == 303


def test_mistakes_come_back_with_what_was_typed(known: SyncSystem, operator: ConsoleClient) -> None:
    assert known
    for typed, message in (
        ('{"daily_tokens": "<b>"', "This is not valid JSON"),
        ("[1]", "one JSON object"),
        ('{"user_claims": [{"hull": "email", "service": "emial"}]}', "did you mean email"),
        ('{"nonsense<script>": 1}', "nonsense&lt;script&gt;"),
    ):
        answer = operator.post("/c/acme/plans", document=typed)
        assert answer.status_code == 400
        assert message in answer.text
        assert str(escape(typed)) in answer.text


def test_plans_of_another_connector_are_not_there(known: SyncSystem, admin: ConsoleClient) -> None:
    path = made(admin, with_more("incoming_user_attributes", FIRST_NAME))
    with transaction() as session:
        other = connectors.Connector(id="a" * 24, name="globex", hull_organization="other.test")
        session.add(other)
        session.flush()
        connectors.add_settings(session, other.key, {}, author="test")
    foreign = path.replace("acme", "globex")

    assert [admin.get(each).status_code for each in (foreign, f"{foreign}/incoming/person")] == [404, 404]
    assert [admin.post(f"{foreign}/{act}").status_code for act in ("apply", "discard", "again")] == [404, 404, 404]
    assert admin.get(f"{path}/sideways/person").status_code == 404
    assert known.rows("SELECT state FROM plans")[0].state == "ready"


def test_hostile_values_are_shown_harmlessly(known: SyncSystem, admin: ConsoleClient) -> None:
    hostile = "<script>alert(1)</script>{{7*7}}\u202e\u200b"
    known.company.edit_person(1, name=f"{hostile} {'x' * 10_000}")
    known.fetch(Entity.PERSON)

    path = made(admin, default_settings() | {"incoming_user_attributes": [{"hull": hostile, "service": "name"}]})
    for page in (admin.text(path), admin.text(f"{path}/incoming/person")):
        assert "<script>alert" not in page
        assert "{{7*7}}" in page
        assert "\u202e" not in page
    assert len(admin.text(f"{path}/incoming/person")) < 30_000


def test_settings_without_a_plan_need_approval(
    hundred: SyncSystem, operator: ConsoleClient, admin: ConsoleClient
) -> None:
    with transaction() as session:
        connector = connectors.get_connector(session, hundred.connector_key)
    document = with_more("incoming_user_attributes", FIRST_NAME)
    hundred.module("sync.connectors.settings_change").change_settings(connector, document, "test")
    hundred.work()

    [run] = hundred.rows("SELECT id, state, reason FROM runs WHERE kind = 'backfill'")
    assert (run.state, run.reason) == ("held", "needs_approval")
    assert "would update all 101 known Persons" in operator.text("/c/acme/plans")
    assert operator.post(f"/c/acme/plans/runs/{run.id}/confirm", number="101").status_code == 403
    assert admin.post(f"/c/acme/plans/runs/{run.id}/confirm", number="7").status_code == 400
    assert admin.post(f"/c/acme/plans/runs/{run.id}/confirm", number="101").status_code == 303
    hundred.work()
    assert hundred.users()[1]["pipedrive/given"] == "Person"
