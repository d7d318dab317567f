from __future__ import annotations

import copy
from typing import Any, ClassVar

import pytest

from pipeline.domain.kinds import Entity
from pipeline.errors import Rejected, Skip
from pipeline.transform.incoming import compile_incoming
from pipeline.transform.webhooks import WebhookAction, complete_record, decode_head, decode_webhook
from tests.unit.transform.company import CODES, ORGANIZATION_FIELDS, PERSON_FIELDS, acme, ada, ada_with, settings
from tests.unit.transform.deliveries import webhook

EVERYTHING = settings(
    *((f"x/{kind}", code) for kind, code in CODES.items()),
    ("x/name", "name"),
    ("x/emails", "emails"),
    ("x/labels", "label"),
    ("x/visible", "visible_to"),
    ("x/created", "add_time"),
)


def without_zone_names(record: dict[str, Any]) -> dict[str, Any]:
    """Return the record without what webhooks omit: they have the id of a time zone and not its name."""
    for value in record["custom_fields"].values():
        if isinstance(value, dict):
            value.pop("timezone_name", None)
    return record


class TestAChange:
    def test_gives_the_record_a_fetch_would_give(self) -> None:
        decoded = decode_webhook(webhook(ada(), PERSON_FIELDS), PERSON_FIELDS)

        assert decoded.record is not None
        fetched = without_zone_names(ada())
        del fetched["picture_id"]
        assert decoded.record == fetched

    def test_of_an_organization_gives_the_record_a_fetch_would_give(self) -> None:
        decoded = decode_webhook(webhook(acme(), ORGANIZATION_FIELDS), ORGANIZATION_FIELDS)

        assert decoded.record == without_zone_names(acme())

    def test_has_the_digest_of_the_fetch(self) -> None:
        transform = compile_incoming(Entity.PERSON, EVERYTHING, PERSON_FIELDS)
        decoded = decode_webhook(webhook(ada(), PERSON_FIELDS), PERSON_FIELDS)

        assert transform.read(decoded.record) == transform.read(ada())
        assert transform.read(ada()).problems == ()

    def test_names_its_head(self) -> None:
        head = decode_webhook(webhook(ada(), PERSON_FIELDS, attempt=3, merged_from_id="9"), PERSON_FIELDS).head

        assert (head.entity, head.action, head.pipedrive_id) == (Entity.PERSON, WebhookAction.CHANGE, 1)
        assert head.event_id == "7c812ffd-8f50-45ea-a597-b8fcba2da9c0"
        assert head.sent_at_ms == 1769938200616
        assert (head.attempt, head.company_id) == (3, 8087566)
        assert (head.merged_to_id, head.merged_from_id) == (None, 9)

    @pytest.mark.parametrize(
        ("label", "expected"), [(None, []), ("", []), (4, [4]), ("4", [4]), ([4], [4]), ("4,7", [4, 7])]
    )
    def test_may_carry_labels_under_their_old_name(self, label: object, expected: list[int]) -> None:
        body = webhook(ada(), PERSON_FIELDS)
        del body["data"]["label_ids"]
        body["data"]["label"] = label

        decoded = decode_webhook(body, PERSON_FIELDS)

        assert decoded.record is not None
        assert decoded.record["label_ids"] == expected

    def test_has_the_earlier_values(self) -> None:
        previous = {"name": "Ada Byron", "custom_fields": {CODES["enum"]: {"type": "enum", "id": 1}}}

        decoded = decode_webhook(webhook(ada(), PERSON_FIELDS, previous=previous), PERSON_FIELDS)

        assert decoded.previous == {"name": "Ada Byron", "custom_fields": {CODES["enum"]: 1}}

    def test_that_lists_a_field_as_changed_and_not_as_set_has_emptied_it(self) -> None:
        previous = {"custom_fields": {CODES["enum"]: {"type": "enum", "id": 1}}}
        body = webhook(ada_with({"enum": None}), PERSON_FIELDS, previous=previous)

        decoded = decode_webhook(body, PERSON_FIELDS)

        assert decoded.record is not None
        assert decoded.record["custom_fields"][CODES["enum"]] is None
        assert decoded.absent == ()

    def test_names_the_custom_fields_that_it_omits(self) -> None:
        body = webhook(ada_with({"enum": None, "set": None}), PERSON_FIELDS)

        assert decode_webhook(body, PERSON_FIELDS).absent == (CODES["enum"], CODES["set"])


UNKNOWN_SHAPES: list[tuple[str, Any]] = [
    ("enum", {"type": "enum", "label": "Green"}),
    ("enum", {"type": "enum", "option": {"id": 2, "label": "Green"}}),
    ("enum", {"type": "enum", "ids": [2]}),
    ("enum", {"type": "enum", "value": {"id": 2}}),
    ("enum", {"type": "enum", "id": None, "label": "Green"}),
    ("enum", [2]),
    ("set", {"type": "set", "ids": [1, 3]}),
    ("set", {"type": "set", "labels": ["Red"]}),
    ("set", {"type": "set", "values": [{"label": "Red"}]}),
    ("set", {"type": "set", "values": [{"option": {"id": 1}}]}),
    ("set", {"type": "set", "values": None, "ids": [1]}),
    ("set", {"type": "set", "values": {"id": 1}}),
    ("monetary", 500),
    ("monetary", {"type": "monetary", "value": 500}),
    ("monetary", {"type": "monetary", "amount": 500, "currency": "EUR"}),
    ("monetary", {"type": "monetary", "value": {"amount": 500, "currency": "EUR"}}),
    ("daterange", "2026-01-01"),
    ("daterange", {"type": "daterange", "start": "2026-01-01", "end": "2026-02-01"}),
    ("daterange", {"type": "daterange", "from": "2026-01-01"}),
    ("daterange", {"type": "daterange", "until": "2026-02-01"}),
    ("daterange", {"type": "daterange", "value": {"from": "2026-01-01"}, "until": None}),
    ("timerange", {"type": "timerange", "start": "09:00:00", "end": "10:00:00"}),
    ("time", "09:00:00"),
    ("time", {"type": "time", "time": "09:00:00"}),
    ("address", "Tee 3, Tallinn"),
    ("address", {"type": "address", "text": "Tee 3"}),
    ("address", {"type": "address", "value": {"street": "Tee 3"}}),
    ("user", {"type": "user", "owner": {"id": 7, "name": "Bo"}}),
    ("user", {"type": "user", "id": {"id": 7}}),
    ("people", {"type": "people", "person_id": 7}),
    ("org", {"type": "org", "ids": [7]}),
    ("varchar", {"type": "varchar", "text": "short"}),
    ("varchar", {"type": "varchar", "value": None, "text": "short"}),
    ("text", {"type": "text", "value": {"html": "a"}}),
    ("double", {"type": "double", "number": 5}),
    ("date", {"type": "date", "day": "2026-01-31"}),
    ("date", {}),
]


class TestAShapeThatIsNotKnown:
    @pytest.mark.parametrize(
        ("kind", "value"), UNKNOWN_SHAPES, ids=[f"{kind}-{str(v)[:50]}" for kind, v in UNKNOWN_SHAPES]
    )
    @pytest.mark.parametrize("previous", [None, {"custom_fields": {CODES["enum"]: None, CODES["set"]: None}}])
    def test_clears_nothing_and_is_read_by_its_id(self, kind: str, value: Any, previous: Any) -> None:
        body = webhook(ada(), PERSON_FIELDS, previous=previous)
        body["data"]["custom_fields"][CODES[kind]] = value

        decoded = decode_webhook(body, PERSON_FIELDS)

        assert decoded.record is not None
        assert CODES[kind] not in decoded.record["custom_fields"]
        assert decoded.unreadable == (CODES[kind],)
        for snapshot in (ada(), ada_with({kind: None}), None):
            assert complete_record(decoded, snapshot, {CODES[kind]})[1] == (CODES[kind],)
        assert complete_record(decoded, ada(), {CODES["phone"]})[1] == ()

    @pytest.mark.parametrize(
        ("key", "value"),
        [
            ("emails", [{"address": "a@x.test", "primary": True}]),
            ("emails", {"work": "a@x.test"}),
            ("phones", [{"number": "+1"}]),
            ("owner_id", {"owner": {"id": 7}}),
            ("owner_id", {"id": {"id": 7}}),
            ("org_id", {"name": "Acme"}),
            ("visible_to", {"label": "Everybody"}),
        ],
    )
    def test_of_any_other_field_makes_the_whole_record_be_read(self, key: str, value: Any) -> None:
        body = webhook(ada(), PERSON_FIELDS)
        body["data"][key] = value

        with pytest.raises(Rejected, match="format"):
            decode_webhook(body, PERSON_FIELDS)

    @pytest.mark.parametrize("given", [None, ...])
    def test_and_no_custom_fields_at_all_leave_every_one_open(self, given: Any) -> None:
        body = webhook(ada(), PERSON_FIELDS, previous={"custom_fields": {CODES["enum"]: {"type": "enum", "id": 1}}})
        body["data"].pop("custom_fields")
        if given is not ...:
            body["data"]["custom_fields"] = given

        decoded = decode_webhook(body, PERSON_FIELDS)

        record, unsure = complete_record(decoded, ada(), {CODES["enum"]})
        assert (unsure, record["custom_fields"][CODES["enum"]]) == (
            (CODES["enum"],),
            ada()["custom_fields"][CODES["enum"]],
        )

    @pytest.mark.parametrize(
        ("kind", "value"),
        [
            ("enum", {"type": "enum", "id": None}),
            ("enum", ""),
            ("set", {"type": "set", "values": []}),
            ("monetary", {"type": "monetary", "value": None, "currency": "EUR"}),
            ("daterange", {"type": "daterange", "from": None, "until": None}),
            ("time", {"type": "time", "value": None, "timezone_id": 3}),
            ("address", {"type": "address", "value": "", "country": ""}),
            ("varchar", {"type": "varchar", "value": None}),
            ("varchar", None),
        ],
    )
    def test_is_not_an_empty_one(self, kind: str, value: Any) -> None:
        body = webhook(ada(), PERSON_FIELDS)
        body["data"]["custom_fields"][CODES[kind]] = value

        decoded = decode_webhook(body, PERSON_FIELDS)

        assert decoded.record is not None
        assert (decoded.record["custom_fields"][CODES[kind]] or None, decoded.unreadable) == (None, ())


class TestCompletingAChange:
    BODY = webhook(ada_with({"enum": None, "set": None}), PERSON_FIELDS)
    USED = frozenset({CODES["enum"]})

    def test_trusts_that_an_empty_field_is_still_empty(self) -> None:
        snapshot = ada_with({"enum": None, "set": None})

        record, unsure = complete_record(decode_webhook(self.BODY, PERSON_FIELDS), snapshot, self.USED)

        assert unsure == ()
        assert record["custom_fields"][CODES["enum"]] is None

    def test_asks_for_a_fetch_when_a_mapped_field_was_set_before(self) -> None:
        _, unsure = complete_record(decode_webhook(self.BODY, PERSON_FIELDS), ada(), self.USED)

        assert unsure == (CODES["enum"],)

    def test_asks_for_a_fetch_when_nothing_is_known_of_a_mapped_field(self) -> None:
        _, unsure = complete_record(decode_webhook(self.BODY, PERSON_FIELDS), None, self.USED)

        assert unsure == (CODES["enum"],)

    def test_asks_for_a_fetch_when_a_mapped_counter_was_never_read(self) -> None:
        body = decode_webhook(webhook(ada(), PERSON_FIELDS), PERSON_FIELDS)

        assert complete_record(body, ada(), {"notes_count"})[1] == ("notes_count",)
        assert complete_record(body, ada(notes_count=3), {"notes_count"})[1] == ()

    def test_keeps_what_webhooks_never_carry_from_the_snapshot(self) -> None:
        snapshot = ada(picture_id=33, open_deals_count=2, name="Older")

        record, _ = complete_record(decode_webhook(self.BODY, PERSON_FIELDS), snapshot, ())

        assert (record["picture_id"], record["open_deals_count"], record["name"]) == (33, 2, "Ada Lovelace")
        assert record["custom_fields"][CODES["set"]] == [3, 1]


class TestADelete:
    def test_has_no_record_and_has_the_last_state(self) -> None:
        body = webhook(None, PERSON_FIELDS, action="delete", previous={"id": 1, "visible_to": "3"}, merged_to_id="12")

        decoded = decode_webhook(body, PERSON_FIELDS)

        assert decoded.record is None
        assert decoded.previous == {"id": 1, "visible_to": 3}
        assert (decoded.head.action, decoded.head.merged_to_id) == (WebhookAction.DELETE, 12)


class TestAHead:
    @pytest.mark.parametrize(
        "timestamp", ["2026-02-01T09:30:00Z", "2026-02-01T09:30:00.000Z", 1769938200, "1769938200", 1769938200000]
    )
    def test_is_dated_in_milliseconds(self, timestamp: object) -> None:
        assert decode_head(webhook(ada(), PERSON_FIELDS, timestamp=timestamp)).sent_at_ms == 1769938200000

    @pytest.mark.parametrize("entity_id", [1, "1"])
    def test_has_a_number_as_id(self, entity_id: object) -> None:
        assert decode_head(webhook(ada(), PERSON_FIELDS, entity_id=entity_id)).pipedrive_id == 1

    def test_has_one_event_id_for_all_deliveries_even_if_pipedrive_gives_none(self) -> None:
        first, again = (webhook(ada(), PERSON_FIELDS, id=None, attempt=attempt) for attempt in (1, 2))
        other = webhook(ada(name="Ada King"), PERSON_FIELDS, id=None)

        assert decode_head(first).event_id == decode_head(again).event_id
        assert decode_head(first).event_id != decode_head(other).event_id

    def test_claims_the_later_of_when_it_was_sent_and_when_its_record_changed(self) -> None:
        sent = webhook(ada(), PERSON_FIELDS, timestamp="2026-02-01T09:30:05Z")
        changed = webhook(ada(update_time="2026-02-01T09:30:09Z"), PERSON_FIELDS, timestamp="2026-02-01T09:30:05Z")
        gone = webhook(None, PERSON_FIELDS, action="delete", previous={"id": 1}, timestamp="2026-02-01T09:30:05Z")

        assert [decode_head(body).latest_ms % 60_000 for body in (sent, changed, gone)] == [5_000, 9_000, 5_000]

    @pytest.mark.parametrize("entity", ["deal", "note", "user"])
    def test_of_anything_else_is_skipped(self, entity: str) -> None:
        with pytest.raises(Skip) as skipped:
            decode_head(webhook(ada(), PERSON_FIELDS, entity=entity))

        assert skipped.value.reason == "not_synchronized"


class TestTheOldFormat:
    BODY: ClassVar[dict[str, Any]] = {
        "v": 1,
        "meta": {
            "v": 1,
            "action": "updated",
            "object": "person",
            "id": 12,
            "timestamp": 1769938200,
            "webhook_id": "77",
        },
        "retry": 0,
        "current": {"id": 12, "name": "Ada"},
        "previous": {"id": 12},
        "event": "updated.person",
    }

    def test_names_a_record_and_nothing_that_may_be_used(self) -> None:
        head = decode_head(self.BODY)

        assert (head.entity, head.pipedrive_id, head.sent_at_ms, head.is_old_format) == (
            Entity.PERSON,
            12,
            1769938200000,
            True,
        )
        with pytest.raises(Rejected, match="version"):
            decode_webhook(self.BODY, PERSON_FIELDS)

    @pytest.mark.parametrize(
        ("word", "action"),
        [
            ("added", WebhookAction.CREATE),
            ("updated", WebhookAction.CHANGE),
            ("merged", WebhookAction.CHANGE),
            ("deleted", WebhookAction.DELETE),
        ],
    )
    def test_has_its_own_names_of_actions(self, word: str, action: WebhookAction) -> None:
        assert decode_head(self.BODY | {"meta": self.BODY["meta"] | {"action": word}}).action is action

    @pytest.mark.parametrize("record_id", [12, "12"])
    def test_is_one_event_over_all_tries_and_another_with_the_next_change(self, record_id: object) -> None:
        """Its `meta.id` is the record's, and no name of an event."""
        first = self.BODY | {"meta": self.BODY["meta"] | {"id": record_id}}
        later = first | {"current": {"id": 12, "name": "Ada L."}}

        assert decode_head(first).event_id == decode_head(first | {"retry": 2}).event_id
        assert decode_head(first).event_id != decode_head(later).event_id

    def test_of_anything_else_is_skipped(self) -> None:
        with pytest.raises(Skip):
            decode_head(self.BODY | {"meta": self.BODY["meta"] | {"object": "deal"}})


def nested(depth: int) -> Any:
    value: Any = {}
    for _ in range(depth):
        value = {"a": [value]}
    return value


@pytest.mark.parametrize(
    "damage",
    [
        {"meta": None},
        {"meta": []},
        {"data": None},
        {"data": [1]},
        {"previous": "x"},
        {"data": {"id": 2}},
        {"data": {"id": 1, "custom_fields": "x"}},
        {"meta": {"action": "change"}},
        {"meta": {"entity": "person", "action": "explode", "entity_id": "1", "timestamp": 1769938200}},
        {"meta": {"entity": "person", "action": "change", "entity_id": "one", "timestamp": 1769938200}},
        {"meta": {"entity": "person", "action": "change", "entity_id": "1", "timestamp": "now"}},
        {"meta": {"entity": "person", "action": "change", "entity_id": "1", "timestamp": 1}, "x": nested(900)},
    ],
)
def test_a_malformed_body_is_rejected(damage: dict[str, Any]) -> None:
    body = copy.deepcopy(webhook(ada(), PERSON_FIELDS)) | damage

    with pytest.raises(Rejected) as refused:
        decode_webhook(body, PERSON_FIELDS)

    assert refused.value.reason == "webhook_malformed"


@pytest.mark.parametrize("body", [None, [], "x", 5, {}, {"v": 1, "current": {}, "event": "updated.person"}])
def test_what_is_no_webhook_of_version_two_is_rejected(body: object) -> None:
    with pytest.raises(Rejected) as refused:
        decode_webhook(body, PERSON_FIELDS)

    assert refused.value.reason == "webhook_malformed"


def test_a_webhook_is_not_read_with_the_other_entitys_fields() -> None:
    with pytest.raises(Rejected):
        decode_webhook(webhook(acme(), ORGANIZATION_FIELDS), PERSON_FIELDS)
