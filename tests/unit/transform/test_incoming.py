from __future__ import annotations

from typing import Any

import pytest

from pipeline.domain.fields import FieldCatalog
from pipeline.domain.kinds import Entity
from pipeline.domain.records import IncomingRecord
from pipeline.domain.settings import AttributeMapping
from pipeline.errors import Rejected, Skip
from pipeline.transform.incoming import compile_incoming
from tests.unit.transform.company import (
    ADDRESS,
    CODES,
    ORGANIZATION_FIELDS,
    PERSON_FIELDS,
    acme,
    ada,
    ada_with,
    code_of,
    settings,
)


def read_person(record: object, *rows: Any, claims: Any = None) -> IncomingRecord:
    return compile_incoming(Entity.PERSON, settings(*rows, claims=claims), PERSON_FIELDS).read(record)


def read_organization(record: object, *rows: Any, claims: Any = None) -> IncomingRecord:
    return compile_incoming(Entity.ORGANIZATION, settings(*rows, claims=claims), ORGANIZATION_FIELDS).read(record)


def reasons(record: IncomingRecord) -> list[tuple[str, str]]:
    return [(problem.field, problem.reason) for problem in record.problems]


class TestAPersonIsIdentified:
    def test_by_the_email_marked_primary_and_not_by_the_first(self) -> None:
        assert read_person(ada()).claims == {"email": "ada@acme.test"}

    def test_by_the_first_email_when_none_is_marked(self) -> None:
        emails = [{"value": "a@x.test"}, {"value": "b@x.test"}]

        assert read_person(ada(emails=emails)).claims == {"email": "a@x.test"}

    def test_by_an_email_in_lower_case_without_spaces(self) -> None:
        assert read_person(ada(emails=[{"value": "  Ada@ACME.test ", "primary": True}])).claims == {
            "email": "ada@acme.test"
        }

    @pytest.mark.parametrize("code", ["email", "emails"])
    def test_under_either_name_of_the_email_field(self, code: str) -> None:
        assert read_person(ada(), claims=(("email", code),)).claims == {"email": "ada@acme.test"}

    def test_by_a_custom_field_mapped_to_external_id(self) -> None:
        record = ada_with({"varchar": " C-17 "})

        found = read_person(record, claims=(("external_id", CODES["varchar"]), ("email", "email")))

        assert found.claims == {"external_id": "C-17", "email": "ada@acme.test"}
        assert list(found.claims) == ["external_id", "email"]

    def test_by_a_number_as_external_id_without_a_decimal_point(self) -> None:
        assert read_person(ada_with({"double": 17.0}), claims=(("external_id", CODES["double"]),)).claims == {
            "external_id": "17"
        }

    def test_by_its_pipedrive_id_alone_when_nothing_else_identifies_it(self) -> None:
        found = read_person(ada(emails=[]))

        assert (found.pipedrive_id, found.claims, found.problems) == (1, {}, ())

    @pytest.mark.parametrize("value", ["nobody", "a b@x.test", "@x.test", "a@b", "a@@x.test", "Ada <a@x.test>"])
    def test_never_by_what_is_no_email(self, value: str) -> None:
        found = read_person(ada(emails=[{"value": value, "primary": True}]), ("pipedrive/name", "name"))

        assert found.claims == {}
        assert reasons(found) == [("email", "wrong_type")]
        assert found.attributes["pipedrive/name"] == "Ada Lovelace"


class TestAnOrganizationIsIdentified:
    def test_by_the_domain_of_its_web_site(self) -> None:
        assert read_organization(acme()).claims == {"domain": "acme.test"}

    def test_by_no_domain_that_belongs_to_everybody(self) -> None:
        found = read_organization(acme(website="https://www.facebook.com/acme"))

        assert found.claims == {}
        assert reasons(found) == [("website", "shared_domain")]

    def test_by_its_name_only_when_that_is_a_host_name(self) -> None:
        by_name = (("domain", "name"),)

        assert read_organization(acme(name="www.Acme.test"), claims=by_name).claims == {"domain": "acme.test"}
        plain = read_organization(acme(name="Acme"), claims=by_name)
        assert (plain.claims, plain.problems) == ({}, ())

    def test_by_the_custom_field_that_holds_the_web_site_elsewhere(self) -> None:
        record = acme()
        record["custom_fields"][CODES["varchar"]] = "http://acme.co.uk"

        assert read_organization(record, claims=(("domain", CODES["varchar"]),)).claims == {"domain": "acme.co.uk"}

    def test_by_its_pipedrive_id_alone_where_the_company_has_no_website_field(self) -> None:
        transform = compile_incoming(Entity.ORGANIZATION, settings(), FieldCatalog.of(Entity.ORGANIZATION, []))
        record = acme()
        del record["website"]

        assert transform.read(record).claims == {}
        assert [(problem.field, problem.reason) for problem in transform.problems] == [("website", "field_missing")]


class TestAttributes:
    def test_are_nothing_but_the_pipedrive_id_when_nothing_is_mapped(self) -> None:
        assert read_person(ada()).attributes == {"pipedrive/id": 1}
        assert read_organization(acme()).attributes == {"pipedrive/id": 5}

    def test_are_only_the_mapped_ones(self) -> None:
        found = read_person(ada(), ("pipedrive/name", "name"), ("job", CODES["varchar"]))

        assert found.attributes == {"pipedrive/name": "Ada Lovelace", "job": "short", "pipedrive/id": 1}

    def test_lose_the_prefix_that_lists_of_hull_put_before_them(self) -> None:
        assert read_person(ada(), ("traits_job", CODES["varchar"])).attributes == {"job": "short", "pipedrive/id": 1}

    def test_never_take_the_place_of_the_id(self) -> None:
        assert read_person(ada(), ("pipedrive/id", "name")).attributes == {"pipedrive/id": 1}

    def test_are_none_where_the_field_is_empty(self) -> None:
        assert read_person(ada_with({"varchar": None}), ("x", CODES["varchar"])).attributes["x"] is None
        assert read_person(ada_with({"varchar": ""}), ("x", CODES["varchar"])).attributes["x"] is None

    def test_are_left_out_where_an_empty_field_is_to_be_ignored(self) -> None:
        row = AttributeMapping(hull="x", service=CODES["varchar"], on_null="ignore")

        assert read_person(ada_with({"varchar": None}), row).attributes == {"pipedrive/id": 1}
        assert read_person(ada_with({"varchar": ""}), row).attributes == {"pipedrive/id": 1}

    @pytest.mark.parametrize(
        ("service", "expected"),
        [
            ("email", "ada@acme.test"),
            ("emails", "ada@acme.test"),
            ("phone", "+372 555"),
            ("phones", "+372 555"),
            ("label", ["Hot lead", "Customer"]),
            ("label_ids", ["Hot lead", "Customer"]),
            ("org_id", 5),
            ("owner_id", 12415231),
            ("add_time", "2026-01-10T08:00:00Z"),
            ("active_flag", True),
            ("is_deleted", False),
            ("visible_to", 3),
        ],
    )
    def test_come_from_a_field_under_its_old_and_its_new_name(self, service: str, expected: object) -> None:
        assert read_person(ada(), ("x", service)).attributes["x"] == expected

    @pytest.mark.parametrize(
        ("service", "expected"),
        [
            (f"{CODES['monetary']}_currency", "EUR"),
            (f"{CODES['daterange']}_until", "2026-02-01"),
            (f"{CODES['timerange']}_until", "11:30:00"),
            (f"{CODES['time']}_timezone_id", 318),
            (f"{CODES['address']}_locality", "Tallinn"),
        ],
    )
    def test_come_from_one_part_of_a_field(self, service: str, expected: object) -> None:
        assert read_person(ada(), ("x", service)).attributes == {"x": expected, "pipedrive/id": 1}

    def test_come_from_a_part_of_the_organizations_address(self) -> None:
        assert read_organization(acme(), ("country", "address_country")).attributes["country"] == "Estonia"

    def test_have_the_parts_of_an_address_beside_them_on_request(self) -> None:
        row = AttributeMapping(hull="home", service="address", parts=("locality", "country"))

        assert read_organization(acme(), row).attributes == {
            "home": ADDRESS["value"],
            "home_locality": "Tallinn",
            "home_country": "Estonia",
            "pipedrive/id": 5,
        }

    def test_keep_a_row_of_their_own_before_a_part_of_the_same_name(self) -> None:
        found = read_person(ada(), ("x", CODES["monetary"]), ("x_currency", "name"))

        assert found.attributes["x_currency"] == "Ada Lovelace"

    def test_hold_the_whole_list_or_the_ids_on_request(self) -> None:
        rows = [
            AttributeMapping(hull="all", service="email", form="list"),
            AttributeMapping(hull="option", service=CODES["enum"], form="id"),
            AttributeMapping(hull="options", service=CODES["set"], form="id"),
        ]

        attributes = read_person(ada(), *rows).attributes

        assert attributes["all"] == ["old@acme.test", "ada@acme.test"]
        assert attributes["option"] == 2
        assert attributes["options"] == [1, 3]


class TestARecord:
    @pytest.mark.parametrize("record", [None, [], "x", 3, True])
    def test_that_is_no_object_is_rejected(self, record: object) -> None:
        with pytest.raises(Rejected) as refused:
            read_person(record)

        assert refused.value.reason == "not_a_record"

    @pytest.mark.parametrize("value", [None, 0, -1, True, "", "x", 1.5, [], 2**63, "9" * 30])
    def test_without_a_usable_id_is_rejected(self, value: object) -> None:
        with pytest.raises(Rejected) as refused:
            read_person(ada(id=value))

        assert refused.value.reason == "no_id"

    @pytest.mark.parametrize("value", [None, "", "yesterday", 17, []])
    def test_without_a_time_is_rejected(self, value: object) -> None:
        with pytest.raises(Rejected) as refused:
            read_person(ada(update_time=value, add_time=value))

        assert refused.value.reason == "no_update_time"

    @pytest.mark.parametrize("mark", [{"is_deleted": True}, {"active_flag": False}])
    def test_that_is_deleted_is_skipped(self, mark: dict[str, bool]) -> None:
        with pytest.raises(Skip) as skipped:
            read_person(ada(**mark))

        assert skipped.value.reason == "deleted_in_pipedrive"

    @pytest.mark.parametrize(
        "text",
        [
            "2026-02-01T09:30:00Z",
            "2026-02-01T09:30:00.000Z",
            "2026-02-01T09:30:00.999Z",
            "2026-02-01T11:30:00+02:00",
            "2026-02-01 09:30:00",
        ],
    )
    def test_has_its_update_time_as_version(self, text: str) -> None:
        assert read_person(ada(update_time=text)).version == 1769938200

    def test_that_was_never_updated_has_its_add_time_as_version(self) -> None:
        assert read_person(ada(update_time=None)).version == 1768032000

    @pytest.mark.parametrize(("value", "expected"), [(5, 5), ({"value": 5}, 5), ({"id": 5}, 5), ("5", 5), (None, None)])
    def test_of_a_person_names_its_organization(self, value: object, expected: int | None) -> None:
        assert read_person(ada(org_id=value)).organization_id == expected

    def test_of_an_organization_names_none(self) -> None:
        assert read_organization(acme(org_id=9)).organization_id is None

    def test_with_a_broken_link_is_sent_without_it(self) -> None:
        found = read_person(ada(org_id=[1]))

        assert found.organization_id is None
        assert reasons(found) == [("org_id", "wrong_type")]

    def test_without_a_mapped_field_reports_it_and_is_sent(self) -> None:
        record = ada()
        del record["custom_fields"][CODES["varchar"]]

        found = read_person(record, ("x", CODES["varchar"]), ("pipedrive/name", "name"))

        assert reasons(found) == [(CODES["varchar"], "field_missing")]
        assert found.attributes == {"pipedrive/name": "Ada Lovelace", "pipedrive/id": 1}

    def test_with_a_field_newer_than_the_definitions_reports_it_and_is_sent(self) -> None:
        record = ada()
        record["custom_fields"][code_of("new")] = "value"

        assert reasons(read_person(record, ("x", code_of("new")))) == [(code_of("new"), "field_missing")]

    def test_is_not_troubled_by_a_deleted_field_which_is_reported_once(self) -> None:
        transform = compile_incoming(Entity.PERSON, settings(("x", code_of("gone"))), PERSON_FIELDS)

        assert [problem.field for problem in transform.problems] == [code_of("gone")]
        assert transform.read(ada()).problems == ()


class TestADigest:
    def test_is_that_of_the_mapped_content_only(self) -> None:
        mapped = ("pipedrive/name", "name")

        before = read_person(ada(), mapped).digest

        assert read_person(ada(update_time="2026-03-01T00:00:00Z", owner_id=9), mapped).digest == before
        assert read_person(ada(name="Ada King"), mapped).digest != before
        assert read_person(ada(org_id=6), mapped).digest != before
        assert read_person(ada(emails=[]), mapped).digest != before

    def test_changes_with_the_mapping(self) -> None:
        assert read_person(ada()).digest != read_person(ada(), claims=(("email", "emails"),)).digest

    def test_does_not_change_when_an_unused_option_is_added(self) -> None:
        fields = dict(PERSON_FIELDS.by_code)
        rows = settings(("x", CODES["enum"]))
        before = compile_incoming(Entity.PERSON, rows, PERSON_FIELDS)
        definition = fields[CODES["enum"]]
        options = {**definition.options, 8: "Mauve"}
        fields[CODES["enum"]] = type(definition)(
            code=definition.code, name=definition.name, type="enum", is_custom=True, options=options
        )
        after = compile_incoming(Entity.PERSON, rows, FieldCatalog(Entity.PERSON, fields))

        assert after.read(ada()).digest == before.read(ada()).digest
        assert after.fingerprint != before.fingerprint


class TestATransformAsksFor:
    def test_the_fields_that_are_given_on_request_only(self) -> None:
        rows = settings(("a", "open_deals_count"), ("b", "cc_email"), ("c", "name"))

        transform = compile_incoming(Entity.PERSON, rows, PERSON_FIELDS)

        assert transform.include_fields == ("open_deals_count", "smart_bcc_email")

    def test_the_custom_fields_it_uses(self) -> None:
        rows = settings(("a", CODES["enum"]), ("b", f"{CODES['monetary']}_currency"), claims=(("email", "email"),))

        transform = compile_incoming(Entity.PERSON, rows, PERSON_FIELDS)

        assert transform.custom_fields == {CODES["enum"], CODES["monetary"]}
