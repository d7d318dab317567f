"""What holds for every record, whatever is in it."""

from __future__ import annotations

import copy
import math
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as configure
from hypothesis import strategies as st

from pipeline.domain.fields import FieldCatalog, read_field_definitions
from pipeline.domain.kinds import Entity
from pipeline.domain.reasons import REASONS
from pipeline.domain.records import IncomingRecord
from pipeline.domain.settings import AttributeMapping
from pipeline.errors import PipelineError
from pipeline.transform.identifiers import registrable_domain
from pipeline.transform.incoming import compile_incoming
from pipeline.transform.outgoing import compile_outgoing
from pipeline.transform.webhooks import complete_record, decode_webhook
from pipeline.transform.writing import write_day, write_options
from tests.unit.transform.company import CODES, ORGANIZATION_FIELDS, PERSON_FIELDS, Row, acme, ada, settings
from tests.unit.transform.deliveries import webhook

often = configure(max_examples=40, deadline=None, database=None, suppress_health_check=list(HealthCheck))

ROWS: tuple[Row, ...] = (
    *((f"x/{kind}", code) for kind, code in CODES.items() if kind != "address"),
    AttributeMapping(hull="x/address", service=CODES["address"], parts=("country", "locality")),
    ("x/name", "name"),
    ("x/email", "emails"),
    ("x/phones", "phone"),
    ("x/labels", "label"),
    ("x/owner", "owner_id"),
    ("x/visible", "visible_to"),
)
PERSONS = settings(*ROWS, outgoing=ROWS, claims=(("email", "email"), ("external_id", CODES["varchar"])))
READ_PERSON = compile_incoming(Entity.PERSON, PERSONS, PERSON_FIELDS)
WRITE_PERSON = compile_outgoing(Entity.PERSON, PERSONS, PERSON_FIELDS)
OF_ORGANIZATIONS: tuple[Row, ...] = (
    ("x/address", "address"),
    ("x/country", "address_country"),
    ("x/site", "website"),
    ("x/labels", "label"),
    *((f"x/{kind}", code) for kind, code in CODES.items() if kind not in ("address", "varchar_auto")),
)
DOMAIN_FROM_ANYWHERE = (("domain", "website"), ("domain", "name"), ("external_id", CODES["text"]))
READ_ORGANIZATION = compile_incoming(
    Entity.ORGANIZATION, settings(*OF_ORGANIZATIONS, claims=DOMAIN_FROM_ANYWHERE), ORGANIZATION_FIELDS
)

texts = st.text(max_size=60).filter(lambda text: "\0" not in text)
words = st.text(st.characters(whitelist_categories=("L", "N")), min_size=1, max_size=12)
numbers = st.one_of(st.integers(-(10**9), 10**9), st.floats(allow_nan=False, allow_infinity=False, width=32))
days = st.dates().map(lambda day: day.isoformat())
times = st.times().map(lambda time: time.replace(microsecond=0).isoformat())
ids = st.integers(1, 10**9)
zones = st.integers(1, 500)
addresses = st.fixed_dictionaries(
    {"value": words, "country": st.none() | words, "locality": st.none() | words, "route": st.none() | words}
)
members = st.lists(
    st.fixed_dictionaries({"value": words, "primary": st.booleans(), "label": st.sampled_from(["work", "home"])}),
    max_size=3,
)
moments = st.integers(10**9, 2 * 10**9).map(lambda at: datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"))

VALUES: dict[str, st.SearchStrategy[Any]] = {
    "varchar": texts,
    "varchar_auto": texts,
    "text": texts,
    "phone": texts,
    "double": numbers,
    "monetary": st.fixed_dictionaries({"value": numbers, "currency": st.sampled_from(["EUR", "USD"])}),
    "enum": st.integers(1, 3),
    "set": st.lists(st.integers(1, 3), min_size=1, unique=True),
    "date": days,
    "daterange": st.fixed_dictionaries({"value": days, "until": days}),
    "time": st.fixed_dictionaries({"value": times, "timezone_id": zones}),
    "timerange": st.fixed_dictionaries({"value": times, "until": times, "timezone_id": zones}),
    "address": addresses,
    "user": ids,
    "people": ids,
    "org": ids,
}
customs = st.fixed_dictionaries({CODES[kind]: st.none() | value for kind, value in VALUES.items()})
shared = {
    "id": ids,
    "name": words,
    "owner_id": ids,
    "add_time": moments,
    "update_time": moments,
    "is_deleted": st.just(value=False),
    "visible_to": st.sampled_from([1, 3, 5, 7]),
    "label_ids": st.lists(st.sampled_from([4, 7]), unique=True),
    "custom_fields": customs,
}
persons = st.fixed_dictionaries({**shared, "org_id": st.none() | ids, "emails": members, "phones": members})
organizations = st.fixed_dictionaries({**shared, "address": st.none() | addresses, "website": st.none() | words})

anything = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(10**19, 10**30)
    | st.floats()
    | st.text(st.characters(), max_size=20)
    | st.sampled_from(["\ud800", "a\0b", "1,2", "2026-01-01", "x" * 3_000, math.nan, 2**64, "a@b.test", "12"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["id", "value", "label", "primary", "until", "from", "values", "currency", "é"]), inner
        )
    ),
    max_leaves=6,
)


@st.composite
def damaged(draw: st.DrawFn, whole: dict[str, Any]) -> dict[str, Any]:
    """Return a record with some system and custom values replaced by arbitrary ones."""
    record = copy.deepcopy(whole)
    for key in draw(st.lists(st.sampled_from(sorted(record)), max_size=4, unique=True)):
        record[key] = draw(anything)
    if isinstance(record["custom_fields"], dict):
        for key in draw(st.lists(st.sampled_from(sorted(CODES.values())), max_size=6, unique=True)):
            record["custom_fields"][key] = draw(anything)
    return record


def assert_known(error: PipelineError) -> None:
    assert error.reason in REASONS


class TestNothingButAnAnticipatedEnd:
    @often
    @given(st.one_of(anything, damaged(ada())))
    def test_comes_from_reading_a_person(self, record: Any) -> None:
        try:
            read = READ_PERSON.read(record)
        except PipelineError as ended:
            assert_known(ended)
        else:
            assert all(problem.reason in REASONS for problem in read.problems)

    @often
    @given(damaged(acme()))
    def test_comes_from_reading_an_organization(self, record: Any) -> None:
        try:
            READ_ORGANIZATION.read(record)
        except PipelineError as ended:
            assert_known(ended)

    @often
    @given(anything, anything, anything, damaged(webhook(ada(), PERSON_FIELDS)["data"]))
    def test_comes_from_decoding_a_webhook(self, body: Any, meta: Any, previous: Any, data: Any) -> None:
        whole = webhook(ada(), PERSON_FIELDS)
        bodies = (body, {"meta": meta}, {**whole, "data": data}, {**whole, "previous": previous})
        for one in bodies:
            try:
                record, _ = complete_record(decode_webhook(one, PERSON_FIELDS), ada(), READ_PERSON.custom_fields)
                READ_PERSON.read(record)
            except PipelineError as ended:
                assert_known(ended)

    @often
    @given(
        st.dictionaries(st.sampled_from([row[0] for row in ROWS if isinstance(row, tuple)] + ["email"]), anything),
        damaged(ada()),
    )
    def test_comes_from_writing_a_report_over_any_snapshot(self, report: Any, snapshot: Any) -> None:
        for known in (snapshot, None):
            try:
                written = WRITE_PERSON.write(report, known)
            except PipelineError as ended:
                assert_known(ended)
            else:
                assert all(problem.reason in REASONS for problem in written.problems)

    @often
    @given(
        st.lists(
            st.one_of(anything, st.dictionaries(st.sampled_from(["field_code", "field_type", "options"]), anything))
        )
    )
    def test_comes_from_reading_field_definitions(self, rows: Any) -> None:
        catalog = FieldCatalog.of(Entity.PERSON, read_field_definitions(rows))
        compile_incoming(Entity.PERSON, PERSONS, catalog).read(ada())

    @often
    @given(st.text(st.characters()))
    def test_comes_from_looking_for_a_domain(self, text: str) -> None:
        found = registrable_domain(text)

        assert found is None or registrable_domain(found) == found


def shuffled(value: Any) -> Any:
    """The same value with every object's keys the other way round."""
    if isinstance(value, dict):
        return {key: shuffled(value[key]) for key in reversed(value)}
    return [shuffled(member) for member in value] if isinstance(value, list) else value


def read_person(record: Any) -> IncomingRecord:
    return READ_PERSON.read(record)


@often
@given(persons)
def test_a_digest_does_not_depend_on_the_order_of_keys(record: dict[str, Any]) -> None:
    assert read_person(shuffled(record)).digest == read_person(record).digest


@often
@given(persons, st.randoms(use_true_random=False))
def test_a_digest_does_not_depend_on_the_order_of_a_set(record: dict[str, Any], random: Any) -> None:
    other = copy.deepcopy(record)
    random.shuffle(other["custom_fields"][CODES["set"]] or [])
    random.shuffle(other["label_ids"])

    assert read_person(other).digest == read_person(record).digest


@pytest.mark.parametrize("sparse", [True, False])
@often
@given(persons)
def test_a_fetch_and_a_webhook_of_one_state_of_a_person_are_one(sparse: bool, record: dict[str, Any]) -> None:
    decoded = decode_webhook(webhook(record, PERSON_FIELDS, sparse=sparse), PERSON_FIELDS)

    completed, unsure = complete_record(decoded, record, READ_PERSON.custom_fields)

    assert READ_PERSON.read(completed) == READ_PERSON.read(record)
    assert unsure == ()


@often
@given(organizations)
def test_a_fetch_and_a_webhook_of_one_state_of_an_organization_are_one(record: dict[str, Any]) -> None:
    decoded = decode_webhook(webhook(record, ORGANIZATION_FIELDS), ORGANIZATION_FIELDS)

    completed, _ = complete_record(decoded, record, READ_ORGANIZATION.custom_fields)

    assert READ_ORGANIZATION.read(completed) == READ_ORGANIZATION.read(record)


@often
@given(persons)
def test_a_value_from_pipedrive_causes_no_write(record: dict[str, Any]) -> None:
    read = read_person(record)

    written = WRITE_PERSON.write({**read.attributes, **read.claims}, record)

    assert written.fields == {}


@often
@given(persons, persons)
def test_a_write_makes_the_person_agree_with_hull(wanted: dict[str, Any], record: dict[str, Any]) -> None:
    transform = compile_outgoing(Entity.PERSON, settings(outgoing=ROWS, claims=()), PERSON_FIELDS)
    report = read_person(wanted).attributes

    fields = transform.write(report, record).fields
    patched = {**record, **fields, "custom_fields": {**record["custom_fields"], **fields.get("custom_fields", {})}}

    assert transform.write(report, patched).fields == {}


INVERTIBLE = (
    "varchar",
    "text",
    "phone",
    "double",
    "monetary",
    "enum",
    "set",
    "date",
    "daterange",
    "user",
    "people",
    "org",
)


@often
@given(st.sampled_from(INVERTIBLE), st.data())
def test_a_delivered_value_is_written_back_as_the_same_value(kind: str, data: st.DataObject) -> None:
    """Into a Person that holds it nothing is written, into one that holds none the very value, or one that reads the same."""
    row = AttributeMapping(hull="x", service=CODES[kind])
    rows = settings(row, outgoing=(row,), claims=())
    read, write = (
        compile_incoming(Entity.PERSON, rows, PERSON_FIELDS),
        compile_outgoing(Entity.PERSON, rows, PERSON_FIELDS),
    )
    held = ada()
    held["custom_fields"] = {CODES[kind]: data.draw(VALUES[kind])}
    delivered = read.read(held)
    report = {name: value for name, value in delivered.attributes.items() if name != "pipedrive/id"}
    assert write.write(report, held).is_empty or delivered.problems

    empty = ada()
    empty["custom_fields"] = {CODES[kind]: None}
    written = write.write(report, empty).fields.get("custom_fields", {})
    again = ada()
    again["custom_fields"] = {CODES[kind]: None, **written}
    assert _shown(read.read(again).attributes["x"]) == _shown(delivered.attributes.get("x"))


def _shown(value: Any) -> Any:
    """Spaces around a text do not count."""
    return (value.strip() or None) if isinstance(value, str) else value


zones_of_the_world = st.integers(-14 * 60, 14 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))


@often
@given(st.datetimes(min_value=datetime(1900, 1, 1), max_value=datetime(2200, 1, 1)), zones_of_the_world)  # noqa: DTZ001
def test_the_day_that_is_written_stays_in_every_zone(moment: datetime, zone: timezone) -> None:
    reported = moment.replace(tzinfo=zone).isoformat()

    assert write_day(reported) == reported[:10] == write_day(write_day(reported))


@often
@given(st.lists(st.sampled_from(["A", "B, C", "B", "D,E", "F"]), min_size=1, max_size=4, unique=True))
def test_a_list_of_labels_is_never_read_as_another_one(labels: list[str]) -> None:
    options: dict[int | str, str] = dict(enumerate(["A", "B, C", "B", "D,E", "F"]))
    by_label = {label: key for key, label in options.items()}

    assert write_options(options, labels, None, by_id=False) == [by_label[each] for each in labels]
    assert write_options(options, ", ".join(labels), None, by_id=False) == [by_label[each] for each in labels]
