"""`/api/v1` offers what the console offers: exports of events, and previews of settings."""

from __future__ import annotations

import csv
import io
import json

from pipeline.domain.kinds import Entity
from tests.integration.console.conftest import Call, ConsoleClient
from tests.integration.console.exporting import CSV, NDJSON, exported, exported_by_script
from tests.integration.console.test_api_acting import done
from tests.integration.console.test_api_looking import ada, foreign
from tests.system import SyncSystem

__all__ = ["ada"]

BASE = "/api/v1/connectors/acme"


# --- the log as a file ------------------------------------------------------------------------------------------------


def test_an_export_has_the_same_events_as_the_console(
    ada: SyncSystem, viewer: ConsoleClient, viewer_script: Call
) -> None:
    for form, kind in (("csv", CSV), ("jsonl", NDJSON)):
        mine = exported_by_script(ada, viewer, viewer_script, form, direction="incoming")
        theirs = exported(ada, viewer, kind, "direction=incoming")

        assert mine == theirs.text
        assert mine.count("\n") > 1
        assert theirs.content_type.startswith(kind)
        assert theirs.headers["Content-Disposition"].endswith(f'.{form}"')
    assert [each.subject for each in done(ada, "logs.export")] == [
        *["csv: direction"] * 2,
        *["jsonl: direction"] * 2,
    ]


def test_an_export_has_no_formulas(ada: SyncSystem, viewer: ConsoleClient, viewer_script: Call) -> None:
    ada.change_rows("UPDATE sync_events SET detail = '=1+1', cause = '@SUM(A1)'")

    rows = list(csv.DictReader(io.StringIO(exported_by_script(ada, viewer, viewer_script, "csv"))))

    assert {(row["detail"], row["cause"]) for row in rows} == {("'=1+1", "'@SUM(A1)")}


def test_an_export_uses_the_filter_of_the_list_and_before(
    ada: SyncSystem, viewer: ConsoleClient, viewer_script: Call
) -> None:
    listed = [each["id"] for each in viewer_script("GET", f"{BASE}/events?record=ada@acme.com")[1]["events"]]

    files = [
        exported_by_script(ada, viewer, viewer_script, "jsonl", record="ada@acme.com", **more)
        for more in ({}, {"before": listed[0]})
    ]

    found = [[json.loads(line)["id"] for line in file.splitlines()] for file in files]
    assert found == [listed, listed[1:]]
    assert len(listed) > 1


def test_an_export_without_events(ada: SyncSystem, viewer_script: Call) -> None:
    foreign()
    exports = f"{BASE}/events/exports"

    assert viewer_script("POST", exports, format="csv", missing=1)[0] == 422
    assert viewer_script("POST", exports, format="csv", limit=1)[0] == 422, "a file has no pages"
    assert viewer_script("POST", exports, format="xlsx")[0] == 422
    assert viewer_script("POST", "/api/v1/connectors/missing/events/exports", format="csv")[0] == 404
    assert [viewer_script("GET", f"{exports}/{path}")[0] for path in ("99", "99/file")] == [404, 404]
    assert done(ada, "logs.export") == [], "nothing was begun"


def test_an_unfinished_file_cannot_be_downloaded(ada: SyncSystem, viewer_script: Call) -> None:
    _, begun = viewer_script("POST", f"{BASE}/events/exports", format="csv")

    status, problem = viewer_script("GET", f"{BASE}/events/exports/{begun['export']['id']}/file")

    assert (status, problem["error"]) == (409, "not_ready")


def test_the_export_of_another_connector_is_not_found(
    ada: SyncSystem, viewer: ConsoleClient, viewer_script: Call
) -> None:
    foreign()

    assert exported_by_script(ada, viewer, viewer_script, "jsonl", connector="globex") == ""


# --- settings before they are saved -----------------------------------------------------------------------------------


def test_only_unmapped_fields_are_suggested(system: SyncSystem, viewer_script: Call) -> None:
    system.fetch(Entity.PERSON)
    custom = {each.code for each in system.company.custom_fields("person")}

    before = viewer_script("GET", f"{BASE}/suggestions")[1]["suggestions"]
    first = before["outgoing_user_attributes"][0]
    system.change_settings(outgoing_user_attributes=[{"hull": first["hull"], "service": first["service"]}])
    after = viewer_script("GET", f"{BASE}/suggestions")[1]["suggestions"]

    assert set(before) == {
        f"{way}_{kind}_attributes" for way in ("incoming", "outgoing") for kind in ("user", "account")
    }
    assert after["outgoing_user_attributes"] == before["outgoing_user_attributes"][1:]
    own = {each["service"] for each in before["incoming_user_attributes"] if not each["is_usual"]}
    assert own
    assert own <= custom


def test_the_steps_of_a_new_connector(system: SyncSystem, viewer_script: Call) -> None:
    fresh = viewer_script("GET", f"{BASE}/first-steps")[1]
    system.fetch(Entity.PERSON)
    fetched = viewer_script("GET", f"{BASE}/first-steps")[1]

    assert fresh["steps"] == ["hull", "pipedrive", "identity", "mappings", "segments", "first-fetch"]
    assert "first-fetch" not in fresh["done"]
    assert "first-fetch" in fetched["done"]
    assert fresh["first_fetch"]["tokens_known"] is None
    assert fetched["first_fetch"]["tokens_known"] > 0


def test_mapping_rows_are_previewed_on_a_real_record(ada: SyncSystem, admin_script: Call, viewer_script: Call) -> None:
    rows = [
        {"hull": "pipedrive/name", "service": "name"},
        {"hull": "", "service": ""},
        {"hull": "x", "service": "no_such"},
    ]

    versions = len(ada.rows("SELECT 1 FROM settings_versions"))
    status, found = admin_script(
        "POST", f"{BASE}/settings/try", setting="outgoing_user_attributes", rows=rows, record="1"
    )
    in_force = viewer_script("GET", f"{BASE}/settings/try?setting=outgoing_user_attributes")[1]
    missing = admin_script("POST", f"{BASE}/settings/try", setting="incoming_user_attributes", rows=rows, record="999")[
        1
    ]

    assert (status, found["sample"]["pipedrive_id"]) == (200, 1)
    name, unwritten, unknown = found["rows"]
    assert (name["conversion"]["before"], name["words"]["field"]) == ("Ada Lovelace", "Name")
    assert (unwritten["words"], unwritten["conversion"]) == (None, None)
    assert unknown["mistakes"]
    assert [each["row"]["service"] for each in in_force["rows"]] == ["name"]
    assert "email" in found["attributes"]
    assert (missing["sample"], missing["rows"][0]["conversion"]) == (None, None)
    assert viewer_script("GET", f"{BASE}/settings/try?setting=daily_tokens")[0] == 422
    assert viewer_script("POST", f"{BASE}/settings/try", setting="outgoing_user_attributes", rows=rows)[0] == 403
    assert len(ada.rows("SELECT 1 FROM settings_versions")) == versions, "nothing is saved"


def test_a_schedule_is_previewed(system: SyncSystem, viewer_script: Call) -> None:
    assert system
    found = viewer_script("GET", f"{BASE}/schedules/try?cron=0 6 * * 1")[1]

    assert found["words"] == "Mondays at 06:00 UTC"
    assert [each[11:16] for each in found["next_at"]] == ["06:00"] * 3
    assert viewer_script("GET", f"{BASE}/schedules/try?cron=soon") == (200, {"words": "", "next_at": []})


def test_settings_with_defaults_and_rebased_on_a_newer_version(system: SyncSystem, admin_script: Call) -> None:
    system.module("sync.runs.runs")
    now = admin_script("GET", f"{BASE}/settings")[1]
    whole = admin_script("GET", f"{BASE}/settings?defaults=true")[1]
    base = now["version"]
    theirs, mine = now["document"] | {"daily_tokens": 77_000}, now["document"] | {"incremental_minutes": 17}
    admin_script("PUT", f"{BASE}/settings", document=theirs, base_version=base, force=True)

    status, rebased = admin_script("POST", f"{BASE}/settings/rebase", document=mine, base_version=base)

    assert "live_reserve" in whole["document"]
    assert "live_reserve" not in now["document"]
    assert (status, rebased["base_version"]) == (200, base + 1)
    assert (rebased["document"]["daily_tokens"], rebased["document"]["incremental_minutes"]) == (77_000, 17)
    assert admin_script("GET", f"{BASE}/settings")[1]["version"] == base + 1, "nothing is saved"
    assert admin_script("POST", f"{BASE}/settings/rebase", document=mine, base_version=99)[0] == 404


# --- sends, webhooks, alerts, keys --------------------------------------------------------------------------------------


def test_a_send_is_counted_before_it_starts(system: SyncSystem, script: Call) -> None:
    for name in ("Ada", "Ben"):
        system.company.create_person(name=name)
    system.fetch(Entity.PERSON)
    ids = [known["id"] for known in system.users().values()]

    status, size = script("POST", f"{BASE}/sends/count", entity="person", ids=[*ids, "f" * 24])

    assert (status, size) == (200, {"count": 2, "most_tokens": 10})
    assert script("POST", f"{BASE}/sends/count", entity="person")[0] == 400
    assert script("GET", f"{BASE}/sends")[1]["sends"] == []
    assert done(system, "send") == []


def test_webhooks_show_recent_deliveries_of_both_sides(ada: SyncSystem, viewer_script: Call) -> None:
    ada.change_rows("UPDATE deliveries SET received_at = now()")
    found = {source: viewer_script("GET", f"{BASE}/webhooks?source={source}")[1] for source in ("pipedrive", "hull")}

    assert {source: sum(each["deliveries"] for each in found["counts"]) for source, found in found.items()} == {
        "pipedrive": len(ada.rows("SELECT 1 FROM deliveries WHERE source = 'pipedrive'")),
        "hull": len(ada.rows("SELECT 1 FROM deliveries WHERE source = 'hull'")),
    }
    assert found["hull"]["counts"]
    assert found["pipedrive"]["failure"] is None
    assert viewer_script("GET", f"{BASE}/webhooks?source=mars")[0] == 422


def test_the_alert_rules_and_sinks(viewer_script: Call) -> None:
    found = viewer_script("GET", "/api/v1/alerts/rules")[1]

    assert {"auth_lost", "watermark_late"} <= {each["name"] for each in found["rules"]}
    assert all(each["meaning"] and each["advice"] for each in found["rules"])
    assert "log" in found["sinks"]


def test_own_keys_are_listed_and_revoked(system: SyncSystem, viewer_script: Call, script: Call) -> None:
    assert system
    (mine,) = viewer_script("GET", "/api/v1/me/keys")[1]["keys"]
    (other,) = script("GET", "/api/v1/me/keys")[1]["keys"]

    assert set(mine) == {"id", "name", "role", "created_at", "expires_at", "used_at"}
    assert viewer_script("POST", f"/api/v1/me/keys/{other['id']}/revoke")[0] == 404, "somebody else's"
    assert viewer_script("POST", f"/api/v1/me/keys/{mine['id']}/revoke") == (200, {"done": "revoked"})
    assert viewer_script("GET", "/api/v1/me")[0] == 401
    assert script("GET", "/api/v1/me")[0] == 200
    assert [each.operator for each in done(system, "key.revoke")] == ["viewer@acme.test"]


def test_the_reason_of_a_pause_is_audited(system: SyncSystem, script: Call) -> None:
    assert script("POST", f"{BASE}/pause?why=they are moving house") == (200, {"done": "paused"})
    assert [each.why for each in done(system, "connector.pause")] == ["they are moving house"]
