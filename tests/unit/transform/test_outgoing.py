from __future__ import annotations

import math
from typing import Any

import pytest

from pipeline.domain.fields import FieldCatalog
from pipeline.domain.kinds import Entity
from pipeline.domain.records import OutgoingWrite
from pipeline.domain.settings import AttributeMapping
from pipeline.errors import Rejected
from pipeline.transform.hull_reports import hull_id_of, pipedrive_id_of, pipedrive_ids_of
from pipeline.transform.outgoing import OutgoingTransform, compile_outgoing
from pipeline.transform.writing import write_option, write_options
from tests.unit.transform.company import (
    ADDRESS,
    CODES,
    ORGANIZATION_FIELDS,
    PERSON_FIELDS,
    Claims,
    Row,
    acme,
    ada,
    ada_with,
    code_of,
    settings,
)


def person(*rows: Row, claims: Claims = ()) -> OutgoingTransform:
    return compile_outgoing(Entity.PERSON, settings(outgoing=rows, claims=claims), PERSON_FIELDS)


def organization(*rows: Row, claims: Claims = None) -> OutgoingTransform:
    return compile_outgoing(Entity.ORGANIZATION, settings(outgoing=rows, claims=claims), ORGANIZATION_FIELDS)


def write_custom(kind: str, value: Any, current: Any, beside: dict[str, Any] | None = None, **row: Any) -> Any:
    """Write one custom field; gives its new value, "same" when nothing is written, or the problem's reason."""
    mapping = AttributeMapping(hull="x", service=CODES[kind], **row)
    written = person(mapping).write({"x": value, **(beside or {})}, ada_with({kind: current}), delivered={CODES[kind]})
    if written.problems:
        assert written.is_empty
        return f"problem: {written.problems[0].reason}"
    return written.fields["custom_fields"][CODES[kind]] if written.fields else "same"


def reasons(written: OutgoingWrite) -> list[tuple[str, str]]:
    return [(problem.field, problem.reason) for problem in written.problems]


@pytest.mark.parametrize(
    ("kind", "value", "current", "expected"),
    [
        ("varchar", "new", "old", "new"),
        ("varchar", " old ", "old", "same"),
        ("varchar", 5, "old", "5"),
        ("varchar", 5.0, "5", "same"),
        ("varchar", 5.25, None, "5.25"),
        ("varchar", True, None, "true"),
        ("varchar", "x" * 255, None, "x" * 255),
        ("varchar", "x" * 256, None, "problem: too_long"),
        ("varchar", ["a"], None, "problem: wrong_type"),
        ("varchar", "a\0", None, "problem: unusable_text"),
        ("varchar", "\ud83d", None, "problem: unusable_text"),
        ("varchar", None, "old", None),
        ("varchar", "", "old", None),
        ("varchar", None, None, "same"),
        ("varchar", None, "", "same"),
        ("text", "x" * 1_000, None, "x" * 1_000),
        ("text", "x" * 65_001, None, "problem: too_long"),
        ("phone", 372555, None, "372555"),
        ("double", 5, 5.0, "same"),
        ("double", "12.50", 5, 12.5),
        ("double", "many", 5, "problem: wrong_type"),
        ("double", True, 5, "problem: wrong_type"),
        ("double", math.nan, 5, "problem: wrong_type"),
        ("double", None, 5, None),
        ("enum", "Green", 1, 2),
        ("enum", "green", 1, 2),
        ("enum", 2, 1, 2),
        ("enum", "2", 1, 2),
        ("enum", "Green", 2, "same"),
        ("enum", "Green", {"id": 2, "label": "Green"}, "same"),
        ("enum", "Mauve", 1, "problem: option_unknown"),
        ("enum", ["Green"], 1, "problem: wrong_type"),
        ("enum", None, 1, None),
        ("set", ["Blue", "Red"], [1], [3, 1]),
        ("set", ["Blue", "Red"], [1, 3], "same"),
        ("set", "Blue", [1], [3]),
        ("set", "Blue, Red", [1], [3, 1]),
        ("set", [3], [1], [3]),
        ("set", ["Blue", "Mauve"], [1], "problem: option_unknown"),
        ("set", [], [1], None),
        ("set", None, [1], None),
        ("set", [], None, "same"),
        ("date", "2026-02-01", "2026-01-31", "2026-02-01"),
        ("date", "2026-01-31T00:00:00Z", "2026-01-31", "same"),
        ("date", "soon", "2026-01-31", "problem: wrong_type"),
        ("date", "2026-05-01T00:30:00+02:00", None, "2026-05-01"),
        ("date", "2026-05-01T00:00:00+14:00", "2026-05-01", "same"),
        ("date", "2026-05-01T23:59:59.999-12:00", None, "2026-05-01"),
        ("date", "2026-05-01 00:00:00", None, "2026-05-01"),
        ("time", "10:00", {"value": "09:00:00", "timezone_id": 318}, {"value": "10:00:00", "timezone_id": 318}),
        ("time", "09:00:00", {"value": "09:00:00", "timezone_id": 318, "timezone_name": "Europe/London"}, "same"),
        ("time", "10:00:00", None, {"value": "10:00:00"}),
        ("time", "noon", None, "problem: wrong_type"),
        ("user", 7, 8, 7),
        ("user", "7", 7, "same"),
        ("user", -7, 8, "problem: wrong_type"),
        ("people", 7.5, 8, "problem: wrong_type"),
        ("org", {"a": 1}, 8, "problem: wrong_type"),
        ("org", None, 8, None),
    ],
)
def test_every_type_of_field_takes_the_attribute(kind: str, value: Any, current: Any, expected: Any) -> None:
    assert write_custom(kind, value, current) == expected


@pytest.mark.parametrize(
    ("amount", "currency", "current", "expected"),
    [
        (5, "USD", {"value": 500, "currency": "EUR"}, {"value": 5, "currency": "USD"}),
        (5, "usd", None, {"value": 5, "currency": "USD"}),
        (5, None, {"value": 500, "currency": "EUR"}, {"value": 5, "currency": "EUR"}),
        (5, None, None, "problem: currency_unknown"),
        ("5", "EUR", {"value": 5.0, "currency": "EUR"}, "same"),
        (None, "EUR", {"value": 5, "currency": "EUR"}, None),
        (5, "Euro", None, "problem: wrong_type"),
        ("five", "EUR", None, "problem: wrong_type"),
    ],
)
def test_money_takes_its_currency_from_the_attribute_beside_it(
    amount: Any, currency: Any, current: Any, expected: Any
) -> None:
    assert write_custom("monetary", amount, current, {"x_currency": currency}) == expected


def test_money_without_a_currency_takes_the_default_of_the_account() -> None:
    catalog = FieldCatalog.of(Entity.PERSON, PERSON_FIELDS.by_code.values(), default_currency="SEK")
    rows = settings(outgoing=(("x", CODES["monetary"]),), claims=())
    write = compile_outgoing(Entity.PERSON, rows, catalog).write

    def written(report: dict[str, Any], current: Any) -> Any:
        return write(report, ada_with({"monetary": current})).fields["custom_fields"][CODES["monetary"]]

    assert written({"x": 5}, None) == {"value": 5, "currency": "SEK"}
    assert written({"x": 5, "x_currency": "usd"}, None) == {"value": 5, "currency": "USD"}
    assert written({"x": 5}, {"value": 4, "currency": "EUR"}) == {"value": 5, "currency": "EUR"}


def test_money_takes_its_currency_from_a_row_of_its_own() -> None:
    transform = person(("amount", CODES["monetary"]), ("unit", f"{CODES['monetary']}_currency"))

    written = transform.write({"amount": 500, "unit": "USD"}, ada())

    assert written.fields == {"custom_fields": {CODES["monetary"]: {"value": 500, "currency": "USD"}}}
    assert person(("unit", f"{CODES['monetary']}_currency")).write({"unit": "USD"}, ada()).fields == written.fields


@pytest.mark.parametrize(
    ("kind", "start", "until", "current", "expected"),
    [
        ("daterange", "2026-01-01", "2026-03-01", None, {"value": "2026-01-01", "until": "2026-03-01"}),
        ("daterange", "2026-01-01", "2026-02-01", {"value": "2026-01-01", "until": "2026-02-01"}, "same"),
        (
            "timerange",
            "09:00",
            "10:00",
            {"timezone_id": 3},
            {"value": "09:00:00", "until": "10:00:00", "timezone_id": 3},
        ),
        ("timerange", "09:00", "10:00", {"value": "09:00:00", "until": "10:00:00", "timezone_id": 3}, "same"),
        ("daterange", "2026-01-01", "soon", None, "problem: wrong_type"),
        (
            "daterange",
            "2026-05-01T00:00:00+02:00",
            "2026-05-02T00:00:00+02:00",
            None,
            {"value": "2026-05-01", "until": "2026-05-02"},
        ),
        ("daterange", "2026-01-01", None, None, "problem: part_missing"),
        ("timerange", "09:00", None, {"value": "08:00:00", "until": "10:00:00"}, "problem: part_missing"),
    ],
)
def test_a_range_takes_its_end_from_the_attribute_beside_it(
    kind: str, start: Any, until: Any, current: Any, expected: Any
) -> None:
    assert write_custom(kind, start, current, {"x_until": until}) == expected


def test_a_zone_can_be_mapped_beside_its_time() -> None:
    transform = person(("at", CODES["time"]), ("zone", f"{CODES['time']}_timezone_id"))

    assert transform.write({"at": "09:00", "zone": 318}, ada()).is_empty
    assert transform.write({"at": "09:00", "zone": 5}, ada()).fields == {
        "custom_fields": {CODES["time"]: {"value": "09:00:00", "timezone_id": 5}}
    }


WORDS: dict[int | str, str] = {
    1: "Food, drinks",
    2: "A",
    3: "Food",
    4: "drinks",
    5: "Caf\u00e9",
    6: "2",
    7: "Twice",
    8: "Twice",
    9: "B",
    10: "One, two, three",
}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Food, drinks", [1]),
        ("Food, drinks,A", "option_ambiguous"),
        ("A,Food", [2, 3]),
        ("A,One, two, three,B", [2, 10, 9]),
        ("One, two, three,One, two, three", [10]),
        ("A,,B,", [2, 9]),
        (" A , b ", [2, 9]),
        ("A,Mauve", "option_unknown"),
        ("One, two", "option_unknown"),
        ("Cafe\u0301,A", [5, 2]),
        (["Food, drinks", "A"], [1, 2]),
        (["A,B"], "option_unknown"),
        (2, [2]),
        (2.0, [2]),
        ("2", [6]),
        ("3", [3]),
        ("Twice", "option_ambiguous"),
        ("cafE\u0301", [5]),
        ("\uff21", [2]),
        (",", None),
        (True, "wrong_type"),
        (2.5, "wrong_type"),
    ],
)
def test_a_text_is_one_label_if_an_option_is_called_so(text: Any, expected: Any) -> None:
    if isinstance(expected, str):
        with pytest.raises(Rejected) as refused:
            write_options(WORDS, text, None, by_id=False)
        assert refused.value.reason == expected
    else:
        assert write_options(WORDS, text, None, by_id=False) == expected


def test_an_option_that_the_record_has_stays_where_two_have_its_label() -> None:
    assert write_options(WORDS, ["Twice"], [8], by_id=False) == [8]
    assert write_option(WORDS, "Twice", 7, by_id=False) == 7


class TestAnAddress:
    def test_that_is_new_is_written_with_the_mapped_parts_only(self) -> None:
        row = AttributeMapping(hull="home", service="address", parts=("country",))

        written = organization(row, claims=()).write({"home": "Rue 1, Paris", "home_country": "France"}, acme())

        assert written.fields == {"address": {"value": "Rue 1, Paris", "country": "France"}}

    def test_that_stays_keeps_its_other_parts_when_one_changes(self) -> None:
        written = organization(("country", "address_country"), claims=()).write({"country": "Eesti"}, acme())

        kept = {part: text for part, text in ADDRESS.items() if text and part != "formatted_address"}
        assert written.fields == {"address": {**kept, "country": "Eesti"}}

    def test_loses_a_part_only_where_hull_filled_it(self) -> None:
        rows = (("home", "address"), ("country", "address_country"), ("city", "address_locality"))
        report_of_address = {"home": ADDRESS["value"], "country": None, "city": None}
        transform = organization(*rows, claims=())

        before = transform.write({**report_of_address, "country": ADDRESS["country"]}, acme(), delivered=())

        assert transform.write(report_of_address, acme()).is_empty
        assert transform.write(report_of_address, acme(), delivered=before.present).fields["address"]["country"] is None
        assert (
            transform.write(report_of_address, acme(), delivered=before.present).fields["address"]["locality"]
            is not None
        )

    def test_can_be_made_of_its_parts(self) -> None:
        rows = (("city", "address_locality"), ("country", "address_country"))

        written = organization(*rows, claims=()).write({"city": "Paris", "country": "France"}, acme(address=None))

        assert written.fields == {"address": {"value": "Paris, France", "locality": "Paris", "country": "France"}}

    def test_that_is_the_same_is_not_written(self) -> None:
        assert organization(("home", "address"), claims=()).write({"home": ADDRESS["value"]}, acme()).is_empty


class TestEmails:
    OLD: dict[str, Any] = {"value": "old@acme.test", "primary": False, "label": "home"}  # noqa: RUF012 - read only
    ADA: dict[str, Any] = {"value": "ada@acme.test", "primary": True, "label": "work"}  # noqa: RUF012 - read only

    def write(self, email: Any, **row: Any) -> Any:
        transform = person(AttributeMapping(hull="email", service="email", **row))
        written = transform.write({"email": email}, ada(), delivered={"email"})
        return written.fields.get("emails", "same")

    def test_get_the_new_one_as_primary_and_keep_the_others(self) -> None:
        assert self.write("new@acme.test") == [
            {"value": "new@acme.test", "primary": True},
            {**self.OLD},
            {**self.ADA, "primary": False},
        ]

    def test_get_a_known_one_marked_primary_and_not_added_again(self) -> None:
        assert self.write("OLD@acme.test") == [{**self.OLD, "primary": True}, {**self.ADA, "primary": False}]

    def test_stay_when_the_primary_is_the_same(self) -> None:
        assert self.write("Ada@acme.test") == "same"

    def test_are_emptied_as_a_whole_so_that_a_repetition_changes_nothing(self) -> None:
        assert self.write(None) == []
        assert person(("email", "email")).write({"email": None}, ada(emails=[]), delivered={"email"}).is_empty

    def test_stay_when_an_empty_attribute_is_to_be_ignored(self) -> None:
        assert self.write(None, on_null="ignore") == "same"

    def test_are_replaced_by_a_whole_list_on_request(self) -> None:
        assert self.write(["ada@acme.test", "b@acme.test"], form="list") == [
            self.ADA,
            {"value": "b@acme.test", "primary": False},
        ]
        assert self.write(["old@acme.test", "ada@acme.test"], form="list") == "same"

    def test_never_have_two_primaries(self) -> None:
        twice = [{"value": "a@x.test", "primary": True}, {"value": "A@x.test", "primary": False}]

        written = person(("email", "email")).write({"email": "b@x.test"}, ada(emails=twice))

        assert [member["primary"] for member in written.fields["emails"]] == [True, False, False]


class TestLabels:
    def test_are_written_by_name(self) -> None:
        assert person(("tags", "label")).write({"tags": ["Customer"]}, ada()).fields == {"label_ids": [7]}

    def test_stay_whatever_their_order(self) -> None:
        assert person(("tags", "label")).write({"tags": ["Hot lead", "Customer"]}, ada()).is_empty

    def test_are_emptied_with_an_empty_list(self) -> None:
        assert person(("tags", "label")).write({"tags": None}, ada(), delivered={"label"}).fields == {"label_ids": []}


class TestNames:
    @pytest.mark.parametrize(
        ("rows", "report", "expected"),
        [
            ((("name", "name"),), {"name": "Ada King"}, {"name": "Ada King"}),
            ((("name", "name"),), {"name": "Ada Lovelace"}, {}),
            ((("f", "first_name"),), {"f": "Augusta"}, {"first_name": "Augusta", "last_name": "Lovelace"}),
            ((("l", "last_name"),), {"l": "King"}, {"first_name": "Ada", "last_name": "King"}),
            ((("f", "first_name"), ("l", "last_name")), {"f": "Ada", "l": "Lovelace"}, {}),
            ((("name", "name"), ("f", "first_name")), {"name": "Ada King", "f": "Augusta"}, {"name": "Ada King"}),
            (
                (("name", "name"), ("f", "first_name"), ("l", "last_name")),
                {"name": "A. K.", "f": "Ada", "l": "King"},
                {"first_name": "Ada", "last_name": "King"},
            ),
        ],
    )
    def test_are_one_whole_or_two_parts(self, rows: tuple[Row, ...], report: Any, expected: Any) -> None:
        assert person(*rows).write(report, ada()).fields == expected

    def test_are_never_emptied(self) -> None:
        written = person(("name", "name"), ("job", CODES["varchar"])).write(
            {"name": None, "job": "new"}, ada(), delivered={"name"}
        )

        assert reasons(written) == [("name", "name_missing")]
        assert written.fields == {"custom_fields": {CODES["varchar"]: "new"}}

    @pytest.mark.parametrize(
        ("report", "name"),
        [
            ({"name": "Bo"}, "Bo"),
            ({"first_name": "Bo", "last_name": "Ek"}, "Bo Ek"),
            ({"email": "bo@x.test"}, "bo@x.test"),
            ({"external_id": "17"}, "17"),
        ],
    )
    def test_of_a_new_person_come_from_what_is_known(self, report: dict[str, Any], name: str) -> None:
        assert person().write(report, None).fields["name"] == name

    @pytest.mark.parametrize(
        ("report", "name"), [({"name": "Bo", "domain": "b.test"}, "Bo"), ({"domain": "b.test"}, "b.test")]
    )
    def test_of_a_new_organization_come_from_what_is_known(self, report: dict[str, Any], name: str) -> None:
        assert organization().write(report, None).fields["name"] == name

    def test_are_needed_to_create_anything(self) -> None:
        with pytest.raises(Rejected) as refused:
            person(("job", CODES["varchar"])).write({"job": "x"}, None)

        assert refused.value.reason == "name_missing"


class TestClaims:
    EMAIL = (("email", "email"), ("external_id", CODES["varchar"]))

    def test_are_written_with_a_new_record(self) -> None:
        written = person(claims=self.EMAIL).write({"email": "Bo@x.test", "external_id": "17", "name": "Bo"}, None)

        assert written.fields == {
            "name": "Bo",
            "emails": [{"value": "bo@x.test", "primary": True}],
            "custom_fields": {CODES["varchar"]: "17"},
        }

    def test_of_a_new_organization_fill_the_field_that_holds_the_domain(self) -> None:
        assert organization().write({"name": "Bo", "domain": "bo.test"}, None).fields == {
            "name": "Bo",
            "website": "bo.test",
        }

    def test_make_a_changed_email_the_primary(self) -> None:
        emails = person(claims=self.EMAIL).write({"email": "new@acme.test"}, ada()).fields["emails"]

        assert [(member["value"], member["primary"]) for member in emails] == [
            ("new@acme.test", True),
            ("old@acme.test", False),
            ("ada@acme.test", False),
        ]

    def test_change_nothing_while_the_person_has_the_email(self) -> None:
        assert person(claims=(("email", "email"),)).write({"email": "OLD@acme.test"}, ada()).is_empty

    def test_never_replace_a_web_site_or_a_name(self) -> None:
        assert organization().write({"domain": "other.test"}, acme()).is_empty
        assert organization(claims=(("domain", "name"),)).write({"domain": "other.test"}, acme()).is_empty

    def test_fill_an_empty_web_site(self) -> None:
        assert organization().write({"domain": "acme.test"}, acme(website=None)).fields == {"website": "acme.test"}

    def test_that_cannot_be_claims_are_named(self) -> None:
        assert reasons(person(claims=self.EMAIL).write({"email": "nobody"}, ada())) == [("email", "wrong_type")]


class TestAWrite:
    def test_has_only_differences_with_their_earlier_values(self) -> None:
        rows = (("name", "name"), ("job", CODES["varchar"]), ("score", CODES["double"]))

        written = person(*rows).write({"name": "Ada Lovelace", "job": "new", "score": 12.5}, ada())

        assert written.fields == {"custom_fields": {CODES["varchar"]: "new"}}
        assert written.before == {CODES["varchar"]: "short"}
        assert written.present == {"name", CODES["varchar"], CODES["double"]}

    def test_is_empty_without_a_mapping(self) -> None:
        assert person().write({"name": "Someone else"}, ada()).is_empty

    def test_of_a_new_record_holds_every_mapped_value_but_no_empty_one(self) -> None:
        rows = (("name", "name"), ("job", CODES["varchar"]), ("score", CODES["double"]))

        assert person(*rows).write({"name": "Bo", "job": None, "score": 3}, None).fields == {
            "name": "Bo",
            "custom_fields": {CODES["double"]: 3},
        }

    def test_takes_attributes_of_the_account(self) -> None:
        written = person(("account.industry", CODES["varchar"])).write({"account": {"industry": "Steel"}}, ada())

        assert written.fields == {"custom_fields": {CODES["varchar"]: "Steel"}}

    @pytest.mark.parametrize("report", [{"traits_job": "new"}, {"job": "new"}])
    def test_takes_attributes_under_either_spelling(self, report: dict[str, Any]) -> None:
        assert person(("traits_job", CODES["varchar"])).write(report, ada()).fields

    def test_lets_the_other_fields_go_when_one_is_wrong(self) -> None:
        rows = (("colour", CODES["enum"]), ("job", CODES["varchar"]))

        written = person(*rows).write({"colour": "Mauve", "job": "new"}, ada())

        assert reasons(written) == [(CODES["enum"], "option_unknown")]
        assert written.fields == {"custom_fields": {CODES["varchar"]: "new"}}

    def test_links_a_person_to_an_organization(self) -> None:
        assert person().write({}, ada(), organization_id=6).fields == {"org_id": 6}
        assert person().write({}, ada(), organization_id=5).is_empty

    def test_empties_nothing_that_hull_never_spoke_of(self) -> None:
        assert person(("job", CODES["varchar"])).write({}, ada()).is_empty

    @pytest.mark.parametrize("empty", [None, "", " ", []])
    def test_that_is_the_first_never_erases(self, empty: Any) -> None:
        rows = tuple((f"x/{kind}", code) for kind, code in CODES.items())
        report = {"email": empty, "tags": empty, "phone": empty, **{hull: empty for hull, _ in rows}}
        system = (("email", "email"), ("phone", "phone"), ("tags", "label"), ("f", "first_name"))

        assert person(*rows, *system).write(report, ada()).is_empty
        assert organization(("home", "address"), claims=()).write({"home": empty}, acme()).is_empty

    def test_empties_only_what_was_delivered_before(self) -> None:
        transform = person(("job", CODES["varchar"]), ("score", CODES["double"]))

        written = transform.write({"job": None}, ada(), delivered={CODES["double"]})

        assert written.fields == {"custom_fields": {CODES["double"]: None}}

    def test_remembers_as_delivered_what_it_could_not_replace(self) -> None:
        transform = person(("colour", CODES["enum"]))

        assert transform.write({"colour": "Mauve"}, ada(), delivered={CODES["enum"]}).present == {CODES["enum"]}
        assert transform.write({"colour": "Mauve"}, ada(), delivered=()).present == frozenset()

    @pytest.mark.parametrize(("value", "expected"), [(5, {"visible_to": 5}), ("3", {}), (3.0, {})])
    def test_sets_visibility(self, value: Any, expected: dict[str, int]) -> None:
        assert person(("v", "visible_to")).write({"v": value}, ada()).fields == expected

    def test_refuses_a_visibility_that_does_not_exist(self) -> None:
        assert reasons(person(("v", "visible_to")).write({"v": 4}, ada())) == [("visible_to", "wrong_type")]


class TestATransformReportsOnce:
    @pytest.mark.parametrize("code", ["id", "add_time", "update_time", "open_deals_count", "active_flag", "cc_email"])
    def test_a_field_that_pipedrive_fills_itself(self, code: str) -> None:
        transform = person(("x", code))

        assert [(problem.field, problem.reason) for problem in transform.problems] == [(code, "not_writable")]
        assert transform.write({"x": 1}, ada()).is_empty

    @pytest.mark.parametrize("code", [code_of("gone"), "nonsense", "birthday"])
    def test_a_field_that_the_company_does_not_have(self, code: str) -> None:
        transform = person(("x", code))

        assert [(problem.field, problem.reason) for problem in transform.problems] == [(code, "field_missing")]
        assert transform.write({"x": "y"}, ada()).is_empty


class TestAReport:
    def test_has_an_id(self) -> None:
        assert hull_id_of({"id": "65f0000000000000000000aa"}) == "65f0000000000000000000aa"

    @pytest.mark.parametrize("report", [{}, {"id": None}, {"id": ""}, {"id": 5}, {"id": "x" * 300}])
    def test_without_an_id_is_rejected(self, report: dict[str, Any]) -> None:
        with pytest.raises(Rejected) as refused:
            hull_id_of(report)

        assert refused.value.reason == "no_hull_id"

    @pytest.mark.parametrize(
        ("report", "expected"),
        [
            ({"pipedrive/id": 12}, 12),
            ({"pipedrive/id": "12"}, 12),
            ({"pipedrive/id": 12.0}, 12),
            ({"traits_pipedrive/id": 12}, 12),
            ({"anonymous_ids": ["x:1", "pipedrive:12"]}, 12),
            ({"anonymous_id": "pipedrive:12"}, 12),
            ({"pipedrive/id": None, "anonymous_ids": None}, None),
            ({"anonymous_ids": ["pipedrive:x", 5, "pipedrive:-1"]}, None),
            ({}, None),
        ],
    )
    def test_names_its_counterpart_in_pipedrive(self, report: dict[str, Any], expected: int | None) -> None:
        assert pipedrive_id_of(report) == expected

    def test_may_name_two_of_them(self) -> None:
        assert pipedrive_ids_of({"pipedrive/id": 1, "anonymous_ids": ["pipedrive:2", "pipedrive:1"]}) == (1, 2)
