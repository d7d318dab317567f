"""Values that are written to Pipedrive: from Hull's report to what Pipedrive then stores, and the events of all others.

The sandbox accepts only the shapes of API v2, so a stored value was written in the right shape.
"""

from __future__ import annotations

from typing import Any

import pytest

from pipeline.domain.kinds import Entity
from tests.deliveries import deliver, listen
from tests.journeys.hull_messages import (
    ACME,
    ANN,
    BEN,
    account,
    as_segments,
    event_details,
    failures,
    fetch_everything,
    field_code,
    organization,
    outgoing_events,
    person,
    pipedrive_id_of,
    send_messages,
    user,
    work_until_idle,
    writes,
)
from tests.prepared import prepared
from tests.system import SyncSystem

NAME = {"hull": "nickname", "service": "name"}
WORK: dict[str, Any] = {"value": "ada@work.test", "primary": True, "label": "work"}
HOME: dict[str, Any] = {"value": "ada@home.test", "primary": False, "label": "home"}


@pytest.fixture(autouse=True)
@prepared
def joined(system: SyncSystem) -> None:
    """Ada is Person 1 and a User, Acme is Organization 1 and an Account."""
    system.company.create_person(name="Ada Lovelace", emails=[WORK, HOME])
    system.company.create_organization(name="Acme", website="https://www.acme.com/about")
    system.change_settings(
        outgoing_user_attributes=[NAME], outgoing_account_attributes=[{"hull": "label", "service": "name"}]
    )
    fetch_everything(system)


def ada(system: SyncSystem, **attributes: Any) -> dict[str, Any]:
    """A message about Ada: her report as Hull has it, with these on top."""
    return user(**{**system.users()[1], "hull_id": system.users()[1]["id"], **attributes})


def acme(system: SyncSystem, **attributes: Any) -> dict[str, Any]:
    return account(**{**system.accounts()[1], "hull_id": system.accounts()[1]["id"], **attributes})


def map_users(system: SyncSystem, **fields: str) -> dict[str, str]:
    """Map each attribute to the custom Person field of this name; gives their codes by attribute."""
    codes = {attribute: field_code(system, "person", name) for attribute, name in fields.items()}
    rows = [{"hull": attribute, "service": service} for attribute, service in codes.items()]
    system.change_settings(outgoing_user_attributes=[NAME, *rows])
    return codes


def emails(system: SyncSystem) -> list[tuple[str, bool, str | None]]:
    return [(each["value"], each["primary"], each.get("label")) for each in person(system, 1)["emails"]]


def problems(system: SyncSystem) -> list[tuple[str, str | None]]:
    """Return (event, reason) of all events with a reason."""
    return [each for each in outgoing_events(system) if each[1] is not None]


@pytest.mark.guide("Outgoing Users", "Apart from them, only identifiers are written that the Person does not have.")
@pytest.mark.defect(12, "A changed e-mail was written as a mixture of texts and objects, with doubles.")
def test_a_new_email_becomes_primary_and_the_others_stay_as_they_are(system: SyncSystem) -> None:
    send_messages(system, ada(system, email="ada@new.test"))
    send_messages(system, ada(system, email="ADA@new.test "))

    assert emails(system) == [
        ("ada@new.test", True, "work"),
        ("ada@work.test", False, "work"),
        ("ada@home.test", False, "home"),
    ]
    assert len(writes(system)) == 1


@pytest.mark.guide("Outgoing Users", "Apart from them, only identifiers are written that the Person does not have.")
def test_another_of_its_emails_becomes_primary_only_where_emails_are_mapped(system: SyncSystem) -> None:
    send_messages(system, ada(system, email="ada@home.test"))
    unmapped = writes(system)

    system.change_settings(outgoing_user_attributes=[{"hull": "email", "service": "email"}])
    send_messages(system, ada(system, email="Ada@Home.test"))

    assert unmapped == []
    assert emails(system) == [("ada@home.test", True, "home"), ("ada@work.test", False, "work")]


def test_a_user_without_an_email_takes_none_away(system: SyncSystem) -> None:
    send_messages(system, ada(system, email=None, nickname="Ada King"))

    assert writes(system) == [("PATCH", 1, {"name": "Ada King"})]


@pytest.mark.parametrize(
    ("report", "name"),
    [
        ({"nickname": "Bo"}, "Bo"),
        ({"name": "Bo Ek"}, "Bo Ek"),
        ({"first_name": "Bo", "last_name": "Ek"}, "Bo Ek"),
        ({"email": "bo@new.test"}, "bo@new.test"),
        ({"external_id": "17"}, "17"),
    ],
)
def test_a_new_person_is_called_by_the_best_that_hull_has(
    system: SyncSystem, report: dict[str, str], name: str
) -> None:
    send_messages(system, user(ANN, **report))

    assert person(system, pipedrive_id_of(system, ANN))["name"] == name


def test_a_user_without_any_name_fails_and_the_next_one_is_sent(system: SyncSystem) -> None:
    send_messages(system, user(ANN, phone="+1 555"), user(BEN, nickname="Ben"))

    assert [body["name"] for _, _, body in writes(system)] == ["Ben"]
    assert failures(system) == [(ANN, "name_missing")]


def test_no_name_is_emptied(system: SyncSystem) -> None:
    codes = map_users(system, job="Job title")
    send_messages(system, ada(system, nickname=None, job="Countess"))
    send_messages(system, ada(system, nickname="Ada King", job="Countess"))
    send_messages(system, ada(system, nickname="", job="Programmer"))

    assert person(system, 1)["name"] == "Ada King"
    assert person(system, 1)["custom_fields"][codes["job"]] == "Programmer"
    assert ("outgoing.user.error", "name_missing") in outgoing_events(system)


def test_an_organization_that_was_named_by_its_domain_keeps_the_name_that_people_give_it(system: SyncSystem) -> None:
    system.change_settings(outgoing_account_attributes=[])
    entered = {"account_segments": {"entered": as_segments(("vip",)), "left": []}}
    send_messages(system, account(ACME, domain="new.test", changes=entered))
    made = pipedrive_id_of(system, ACME) or 0
    before = organization(system, made)["name"]
    system.company.edit_organization(made, name="New Ltd")
    system.fetch(Entity.ORGANIZATION, changed_only=True)

    send_messages(system, account(ACME, domain="new.test", changes=entered))
    send_messages(system, account(ACME, domain="newer.test"), is_export=True)

    after = organization(system, made)
    assert (before, after["name"], after["website"]) == ("new.test", "New Ltd", "new.test")


@pytest.mark.guide("Account Identity", "A domain never replaces the name or the website of an Organization.")
@pytest.mark.defect(14, "Every update of an Account overwrote the Organization's name with the domain.")
@pytest.mark.parametrize(
    ("claim", "field"), [("domain", "website"), ("domain", "name"), ("external_id", "name")], ids=lambda value: value
)
def test_an_identifier_replaces_no_name_and_no_website(system: SyncSystem, claim: str, field: str) -> None:
    notes = field_code(system, "organization", "Support notes")
    system.change_settings(
        account_claims=[{"hull": claim, "service": field}],
        outgoing_account_attributes=[{"hull": "notes", "service": notes}],
    )
    before = organization(system, 1)[field]
    send_messages(system, acme(system, notes="New", **{claim: "acme.com"}))

    assert writes(system) == [("PATCH", 1, {"custom_fields": {notes: "New"}})]
    assert organization(system, 1)[field] == before


@pytest.mark.defect(
    24, "An update wrote no identifier but a changed e-mail, so one that was mapped later never arrived."
)
@pytest.mark.parametrize("entity", Entity)
def test_an_identifier_that_is_mapped_later_is_written_to_known_records(system: SyncSystem, entity: Entity) -> None:
    number = field_code(system, entity.value, "Customer number")
    system.change_settings(**{f"{entity.hull}_claims": [{"hull": "external_id", "service": number}]})

    for value in ("C-1", "C-2"):
        send_messages(system, (ada if entity is Entity.PERSON else acme)(system, external_id=value))

    assert [body for _, _, body in writes(system)] == [{"custom_fields": {number: value}} for value in ("C-1", "C-2")]


USER = 12406074
"""A user of the sandbox's company."""

VALUES: list[tuple[str, Any, Any]] = [
    ("Job title", "Countess", "Countess"),
    ("Lead score", "12.50", 12.5),
    ("Direct line", 372555, "372555"),
    ("Customer since", "2026-02-01T23:30:00Z", "2026-02-01"),
    ("Preferred call time", "09:30", {"value": "09:30:00", "timezone_id": 318, "timezone_name": "Europe/London"}),
    ("Interests", ["Events", "Product news"], ["Events", "Product news"]),
    ("Interests", "Case studies", ["Case studies"]),
    ("Lead source", "trade fair", "Trade fair"),
    ("Greeting", "Dear Ada", "Dear Ada"),
    ("Previous employer", 1, 1),
    ("Referred by", "1", 1),
    ("Account manager", USER, USER),
]
"""(field, value in Hull, value that Pipedrive must store; options by their labels)"""


@pytest.mark.guide(
    "Outgoing Users", "Outgoing user attributes: each attribute that is mapped here is written to its Person field."
)
@pytest.mark.defect(16, "The same attributes were written to Pipedrive as they were, whatever their fields take.")
@pytest.mark.defect(16, "An attribute that was emptied in Hull kept its value in Pipedrive.")
@pytest.mark.parametrize(("field", "sent", "held"), VALUES, ids=[f"{field}: {sent}" for field, sent, _ in VALUES])
def test_every_kind_of_field_takes_its_value_once_and_is_emptied_by_null(
    system: SyncSystem, field: str, sent: Any, held: Any
) -> None:
    service = map_users(system, value=field)["value"]
    send_messages(system, ada(system, value=sent))
    first = _labelled(system, service)
    send_messages(system, ada(system, value=sent))
    again = len(writes(system))
    send_messages(system, ada(system, value=None))

    assert (first, again) == (held, 1)
    assert person(system, 1)["custom_fields"][service] is None
    assert outgoing_events(system) == [
        ("outgoing.user.success", None),
        ("outgoing.user.skip", "no_change"),
        ("outgoing.user.success", None),
    ]


def _labelled(system: SyncSystem, service: str) -> Any:
    """A custom field of Ada's as Pipedrive holds it, options by their labels."""
    held = person(system, 1)["custom_fields"][service]
    field = next(each for each in system.company.custom_fields("person") if each.code == service)
    labels = {option.id: option.label for option in field.options}
    if isinstance(held, list):
        return [labels[each] for each in held]
    return labels.get(held, held) if labels else held


COMPOSED: list[tuple[str, dict[str, Any], Any]] = [
    ("Credit limit", {"value": 500, "value_currency": "usd"}, {"value": 500, "currency": "USD"}),
    (
        "Contract period",
        {"value": "2026-01-01", "value_until": "2026-03-01"},
        {"value": "2026-01-01", "until": "2026-03-01"},
    ),
    (
        "Office hours",
        {"value": "09:00", "value_until": "17:00"},
        {"value": "09:00:00", "until": "17:00:00", "timezone_id": 318, "timezone_name": "Europe/London"},
    ),
]


@pytest.mark.defect(16, "The same attributes were written to Pipedrive as they were, whatever their fields take.")
@pytest.mark.parametrize(("field", "sent", "held"), COMPOSED, ids=[field for field, _, _ in COMPOSED])
def test_a_value_of_several_parts_takes_them_from_the_attributes_beside_it(
    system: SyncSystem, field: str, sent: dict[str, Any], held: Any
) -> None:
    service = map_users(system, value=field)["value"]
    send_messages(system, ada(system, **sent))
    send_messages(system, ada(system, **sent))

    assert person(system, 1)["custom_fields"][service] == held
    assert len(writes(system)) == 1


def test_an_amount_without_a_currency_takes_the_default_of_the_account(system: SyncSystem) -> None:
    service = map_users(system, value="Credit limit")["value"]
    send_messages(system, ada(system, value=500))
    send_messages(system, ada(system, value=600))

    assert person(system, 1)["custom_fields"][service] == {"value": 600, "currency": "EUR"}
    assert problems(system) == []
    assert system.pipedrive.ledger.requests["user"] == 1


def test_an_amount_waits_as_a_rejected_field_while_the_currency_cannot_be_read(system: SyncSystem) -> None:
    service = map_users(system, value="Credit limit")["value"]
    system.pipedrive.faults.add("/users/me", "status", status=500, count=None)
    send_messages(system, ada(system, nickname="Ada King", value=500))

    assert writes(system) == [("PATCH", 1, {"name": "Ada King"})]
    assert field_failures(system) == [("field", service, "currency_unknown")]


@pytest.mark.parametrize(("field", "sent", "_held"), COMPOSED[1:], ids=[field for field, _, _ in COMPOSED[1:]])
def test_a_value_with_a_missing_part_is_left_out_alone(
    system: SyncSystem, field: str, sent: dict[str, Any], _held: Any
) -> None:
    service = map_users(system, value=field)["value"]
    send_messages(system, ada(system, nickname="Ada King", value=sent["value"]))

    assert writes(system) == [("PATCH", 1, {"name": "Ada King"})]
    assert problems(system) == [("outgoing.user.error", "part_missing")]
    assert service in event_details(system, "part_missing")[0]


def test_an_address_takes_its_text_and_its_mapped_parts(system: SyncSystem) -> None:
    service = field_code(system, "person", "Delivery address")
    row = {"hull": "home", "service": service, "parts": ["country", "locality"]}
    system.change_settings(outgoing_user_attributes=[row])
    send_messages(system, ada(system, home="12 St James's Square, London", home_country="UK", home_locality="London"))

    held = person(system, 1)["custom_fields"][service]
    assert (held["value"], held["country"], held["locality"]) == ("12 St James's Square, London", "UK", "London")


def test_an_empty_attribute_is_ignored_if_the_mapping_ignores_null(system: SyncSystem) -> None:
    service = field_code(system, "person", "Job title")
    system.change_settings(outgoing_user_attributes=[{"hull": "job", "service": service, "on_null": "ignore"}])
    send_messages(system, ada(system, job="Countess"))
    send_messages(system, ada(system, job=None))

    assert person(system, 1)["custom_fields"][service] == "Countess"


def test_what_hull_never_spoke_of_is_not_emptied(system: SyncSystem) -> None:
    codes = map_users(system, job="Job title", remarks="Remarks")
    system.company.edit_person(1, custom_fields={codes["job"]: "Countess"})
    system.fetch(Entity.PERSON, changed_only=True)
    send_messages(system, ada(system, remarks="hello"))

    held = person(system, 1)["custom_fields"]
    assert (held[codes["job"]], held[codes["remarks"]]) == ("Countess", "hello")


@pytest.mark.parametrize("is_export", [False, True])
def test_a_first_null_erases_nothing_that_came_from_elsewhere(system: SyncSystem, is_export: bool) -> None:
    codes = map_users(system, job="Job title", home="Delivery address")
    held = {codes["job"]: "Countess", codes["home"]: {"value": "St James's Square", "country": "UK"}}
    system.company.edit_person(1, custom_fields=held)
    system.fetch(Entity.PERSON, changed_only=True)
    send_messages(system, ada(system, job=None, home=None), is_export=is_export)
    send_messages(system, ada(system, job=None, home="", nickname="Ada King"), is_export=is_export)
    kept = dict(person(system, 1)["custom_fields"])
    send_messages(system, ada(system, job="Programmer"))
    send_messages(system, ada(system, job=None))

    assert (kept[codes["job"]], kept[codes["home"]]["country"]) == ("Countess", "UK")
    assert person(system, 1)["custom_fields"][codes["job"]] is None


def test_a_delivered_value_that_is_cleared_in_hull_is_cleared_in_pipedrive(system: SyncSystem) -> None:
    service = field_code(system, "person", "Job title")
    row = {"hull": "job", "service": service}
    system.change_settings(incoming_user_attributes=[row], outgoing_user_attributes=[row])
    system.company.edit_person(1, custom_fields={service: "Countess"})
    system.fetch(Entity.PERSON, changed_only=True)
    send_messages(system, ada(system, job=None, changes={"user": {"job": ["Baroness", None]}}))
    older = person(system, 1)["custom_fields"][service]
    send_messages(system, ada(system, job=None, changes={"user": {"job": ["Countess", None]}}))

    assert (older, person(system, 1)["custom_fields"][service]) == ("Countess", None)


WRONG: list[tuple[str, Any, str]] = [
    ("Lead source", "from nowhere", "option_unknown"),
    ("Interests", ["Events", "from nowhere"], "option_unknown"),
    ("Lead score", "many", "wrong_type"),
    ("Customer since", "soon", "wrong_type"),
    ("Job title", "x" * 256, "too_long"),
    ("Job title", {"of": "an object"}, "wrong_type"),
    ("Lead score", {"of": "an object"}, "wrong_type"),
    ("Interests", {"of": "an object"}, "wrong_type"),
    ("Interests", [{"of": "an object"}], "wrong_type"),
    ("Customer since", {"of": "an object"}, "wrong_type"),
    ("Credit limit", {"value": 5, "currency": "EUR"}, "wrong_type"),
    ("Delivery address", {"value": "London"}, "wrong_type"),
    ("Account manager", {"id": 1}, "wrong_type"),
]


@pytest.mark.guide(
    "I don't see recently added/updated fields in Pipedrive",
    "Each has the reason; a value that its field cannot have is named, and the other fields are written.",
)
@pytest.mark.parametrize(("field", "sent", "reason"), WRONG, ids=[f"{field}: {sent}"[:40] for field, sent, _ in WRONG])
def test_a_value_that_does_not_fit_is_named_and_the_others_are_written(
    system: SyncSystem, field: str, sent: Any, reason: str
) -> None:
    service = map_users(system, value=field)["value"]
    send_messages(system, ada(system, nickname="Ada King", value=sent))

    assert writes(system) == [("PATCH", 1, {"name": "Ada King"})]
    assert problems(system) == [("outgoing.user.error", reason)]
    (detail,) = event_details(system, reason)
    assert detail.startswith(f"{service}: ")
    assert "nowhere" not in detail


def refuse(system: SyncSystem, *fields: str, method: str = "PATCH") -> None:
    """Pipedrive refuses one write to a Person for each of these fields, and names it as its validation does."""
    for field in fields:
        body = {
            "success": False,
            "error": f"Validation failed: {field}: is not allowed",
            "code": "ERR_SCHEMA_VALIDATION_FAILED",
        }
        system.pipedrive.faults.add("/persons", "status", status=400, body=body, method=method)


def field_failures(system: SyncSystem) -> list[tuple[str, str, str]]:
    query = "SELECT kind, field, reason FROM failures WHERE state = 'open' ORDER BY field"
    return [(row.kind, row.field, row.reason) for row in system.rows(query)]


@pytest.mark.parametrize("is_new", [False, True])
def test_a_field_that_pipedrive_refuses_stays_behind_and_the_rest_is_written(system: SyncSystem, is_new: bool) -> None:
    job = field_code(system, "person", "Job title")
    rows = [{"hull": "owner", "service": "owner_id"}, {"hull": "job", "service": job}]
    system.change_settings(outgoing_user_attributes=[NAME, *rows])
    hull_id = ANN if is_new else system.users()[1]["id"]

    def report(owner: int) -> dict[str, Any]:
        sent = {"nickname": "Ada King", "job": "Countess", "owner": owner}
        return user(ANN, **sent) if is_new else ada(system, **sent)

    send_messages(system, report(987_654))
    written = dict(person(system, pipedrive_id_of(system, hull_id)))
    found = field_failures(system)
    send_messages(system, report(USER))

    assert (written["name"], written["custom_fields"][job]) == ("Ada King", "Countess")
    assert written["owner_id"] != 987_654
    assert found == [("field", "owner_id", "field_refused")]
    assert event_details(system, "field_refused") == [
        "owner_id: HTTP 400: Validation failed: owner_id: user … was not found; " + TAIL
    ]
    assert person(system, pipedrive_id_of(system, hull_id))["owner_id"] == USER
    assert field_failures(system) == []


TAIL = "ERR_SCHEMA_VALIDATION_FAILED; Please check …"


def test_every_field_that_is_refused_in_turn_stays_behind(system: SyncSystem) -> None:
    codes = map_users(system, job="Job title", remarks="Remarks", score="Lead score")
    refuse(system, f"custom_fields.{codes['job']}", f"custom_fields.{codes['score']}.value", "name")
    send_messages(system, ada(system, nickname="Ada King", job="Countess", remarks="hello", score=7))

    held = person(system, 1)["custom_fields"]
    assert (held[codes["remarks"]], held.get(codes["job"]), held.get(codes["score"])) == ("hello", None, None)
    assert {field for _, field, _ in field_failures(system)} == {codes["job"], codes["score"], "name"}
    assert failures(system) != []


def test_an_update_of_which_nothing_is_left_is_no_failed_record(system: SyncSystem) -> None:
    refuse(system, "name")
    send_messages(system, ada(system, nickname="Ada King"))

    assert field_failures(system) == [("field", "name", "field_refused")]
    assert outgoing_events(system) == [
        ("outgoing.user.skip", "field_refused"),
        ("outgoing.user.error", "field_refused"),
    ]


def test_a_record_that_cannot_be_made_without_what_is_refused_is_kept(system: SyncSystem) -> None:
    refuse(system, "name", method="POST")
    send_messages(system, user(ANN, nickname="Ann"))

    assert failures(system) == [(ANN, "refused_by_pipedrive")]


def test_a_value_that_still_does_not_fit_is_reported_once(system: SyncSystem) -> None:
    map_users(system, value="Lead source")
    for plan in ("a", "b", "c"):
        send_messages(system, ada(system, value="from nowhere", plan=plan))

    assert outgoing_events(system) == [("outgoing.user.skip", "no_change"), ("outgoing.user.error", "option_unknown")]


def test_mappings_that_cannot_be_written_are_named_and_the_others_go(system: SyncSystem) -> None:
    gone = field_code(system, "person", "Job title")
    rows = [{"hull": "job", "service": gone}, {"hull": "since", "service": "add_time"}]
    system.change_settings(outgoing_user_attributes=[NAME, *rows])
    system.company.remove_field("person", gone)
    let_definitions_grow_old(system)
    send_messages(
        system,
        ada(system, nickname="Ada King", job="Countess", since="2026-01-01"),
        user(BEN, nickname="Ben", job="Baron"),
    )

    work_until_idle(system)

    assert failures(system) == []
    assert sorted((method, body["name"]) for method, _, body in writes(system)) == [
        ("PATCH", "Ada King"),
        ("POST", "Ben"),
    ]
    assert sorted(problems(system)) == [
        ("outgoing.user.error", "field_missing"),
        ("outgoing.user.error", "not_writable"),
    ]
    assert event_details(system, "not_writable")[0].startswith("add_time: ")
    assert any(each.startswith(f"{gone}: ") for each in event_details(system, "field_missing"))


def let_definitions_grow_old(system: SyncSystem) -> None:
    """What Pipedrive sent of its fields was read some time ago."""
    system.change_rows(
        "UPDATE field_definitions SET fetched_at = fetched_at - interval '6 minutes', refresh_began_at = NULL"
    )


def test_an_option_that_is_new_in_pipedrive_is_known_as_soon_as_it_is_needed(system: SyncSystem) -> None:
    service = map_users(system, value="Lead source")["value"]
    field = next(each for each in system.company.custom_fields("person") if each.code == service)
    system.company.add_options("person", field, ["Podcast"])
    let_definitions_grow_old(system)
    send_messages(system, ada(system, value="Podcast"))

    assert _labelled(system, service) == "Podcast"
    assert outgoing_events(system) == [("outgoing.user.success", None)]


def test_a_mapping_that_cannot_be_written_is_no_reason_to_speak_again(system: SyncSystem) -> None:
    system.change_settings(outgoing_user_attributes=[NAME, {"hull": "since", "service": "add_time"}])
    for plan in ("a", "b", "c"):
        send_messages(system, ada(system, plan=plan))

    assert outgoing_events(system) == [("outgoing.user.skip", "no_change"), ("outgoing.user.error", "not_writable")]


@pytest.mark.guide(
    "Outgoing Users", "With account. before its name, an attribute of the User's Account can be mapped as well."
)
@pytest.mark.defect(13, "A mapped attribute of the Account let the User pass, and was then not found in it.")
def test_attributes_of_the_account_are_written_to_the_person(system: SyncSystem) -> None:
    service = field_code(system, "person", "Job title")
    system.change_settings(outgoing_user_attributes=[NAME, {"hull": "account.industry", "service": service}])
    send_messages(system, ada(system, account={"id": ACME, "industry": "Steel"}))
    with_account = person(system, 1)["custom_fields"][service]
    send_messages(system, ada(system, nickname="Ada King", account=None))

    assert with_account == "Steel"
    assert person(system, 1)["custom_fields"][service] is None  # the User has left the Account
    assert person(system, 1)["name"] == "Ada King"


def test_a_report_of_a_merged_person_reaches_the_one_that_is_left(system: SyncSystem) -> None:
    received = listen(system)
    other = system.company.create_person(name="Countess", emails=[{"value": "countess@new.test", "primary": True}])
    message = ada(system, nickname="Ada King")
    system.company.merge("person", 1, other["id"])
    deliver(system, *received)
    system.work()
    send_messages(system, message)
    work_until_idle(system)

    assert [(method, each) for method, each, _ in writes(system)] == [("PATCH", other["id"])]
    assert person(system, other["id"])["name"] == "Ada King"
    assert failures(system) == []


def test_a_value_that_pipedrive_changes_is_reported_and_not_written_again(system: SyncSystem) -> None:
    system.pipedrive.faults.add("/persons/1$", "rewrite", method="PATCH", find='"Ada King"', put='"Ada K."')
    send_messages(system, ada(system, nickname="Ada King"))
    send_messages(system, ada(system, nickname="Ada King", plan="gold"))

    assert len(writes(system)) == 1
    assert outgoing_events(system)[:2] == [
        ("outgoing.user.success", None),
        ("outgoing.user.skip", "changed_by_pipedrive"),
    ]
    assert event_details(system, "changed_by_pipedrive")[0].startswith("name: ")


@pytest.mark.guide(
    "Outgoing Accounts",
    "Outgoing account attributes: each attribute that is mapped here is written to its Organization field.",
)
@pytest.mark.defect(16, "An attribute that was emptied in Hull kept its value in Pipedrive.")
def test_every_kind_of_field_of_an_organization_is_written_as_well(system: SyncSystem) -> None:
    sent = {
        "Domains": "acme.com",
        "Health score": 7,
        "Founded on": "1999-01-31",
        "Products in use": ["Core", "API access"],
        "Tier": "Enterprise",
        "Parent company": 1,
        "Main contact": 1,
        "Success manager": USER,
    }
    rows = [{"hull": name, "service": field_code(system, "organization", name)} for name in sent]
    system.change_settings(outgoing_account_attributes=rows)
    send_messages(system, acme(system, **sent))
    send_messages(system, acme(system, **sent))

    held = organization(system, 1)["custom_fields"]
    assert all(held[row["service"]] not in (None, []) for row in rows)
    assert len(writes(system)) == 1
    assert problems(system) == [("outgoing.account.skip", "no_change")]

    send_messages(system, acme(system, **dict.fromkeys(sent)))
    assert all(organization(system, 1)["custom_fields"][row["service"]] in (None, []) for row in rows)


def test_a_write_knows_what_changed_in_fields_that_do_not_come_to_hull(system: SyncSystem) -> None:
    """Hull receives neither the further e-mails nor the job title. A write still has to use their newest values."""
    service = map_users(system, job="Job title")["job"]
    added = {"value": "ada@club.test", "primary": False, "label": "other"}
    system.company.edit_person(1, emails=[WORK, HOME, added], custom_fields={service: "Countess"})
    seen = system.hull.received.count
    system.fetch(Entity.PERSON, changed_only=True)
    sent_to_hull = system.hull.received.count - seen

    send_messages(system, ada(system, email="ada@new.test", job="Countess"))

    assert sent_to_hull == 0
    assert [set(body) for _, _, body in writes(system)] == [{"emails"}]
    assert [each[0] for each in emails(system)] == ["ada@new.test", "ada@work.test", "ada@home.test", "ada@club.test"]


def test_a_further_email_is_known_by_as_long_as_the_person_has_it(system: SyncSystem) -> None:
    added = {"value": "ada@club.test", "primary": False, "label": "other"}
    known = []
    for addresses in ([WORK, HOME, added], [WORK, HOME]):
        system.company.edit_person(1, emails=addresses)
        system.fetch(Entity.PERSON, changed_only=True)
        known.append({row.value for row in system.rows("SELECT value FROM identifiers WHERE role = 'alias'")})

    assert known == [{"ada@home.test", "ada@club.test"}, {"ada@home.test"}]
    assert [
        row.value for row in system.rows("SELECT value FROM identifiers WHERE role = 'holder' AND kind = 'email'")
    ] == ["ada@work.test"]


def test_a_record_without_news_is_stored_without_an_event(system: SyncSystem) -> None:
    service = field_code(system, "person", "Remarks")
    system.company.edit_person(1, custom_fields={service: "hello"})
    before = system.events()
    system.fetch(Entity.PERSON, changed_only=True)
    version = system.rows("SELECT version FROM id_mappings WHERE entity = 'person'")[0].version

    assert system.events() == before
    assert (
        system.rows("SELECT version FROM snapshots WHERE entity = 'person' AND side = 'pipedrive'")[0].version
        == version
    )
    assert version > 1_780_000_000
