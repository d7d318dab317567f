"""The company of credentials: read from `users/me`, and compared with the connector's."""

from __future__ import annotations

from typing import Any

import pytest

from db.connector import Connector
from pipeline.errors import ConfigurationError, Retryable
from pipeline.sync.connectors.company import Company, join, read_company

ADMIN = [{"app": "sales", "admin": True}]
ACME = "https://acme.pipedrive.com"


def company(**changes: Any) -> Company:
    return Company(**({"id": 7, "origin": ACME, "user_id": 1, "is_administrator": True} | changes))


@pytest.mark.parametrize(
    ("access", "is_administrator"),
    [
        (ADMIN, True),
        ([{"app": "global", "admin": False}, {"app": "account_settings", "admin": True}], True),
        ([{"app": "campaigns", "admin": True}, {"app": "sales", "admin": False}], False),
        ([{"app": "sales", "admin": "yes"}], False),
        ([], False),
        (None, False),
        (["sales"], False),
    ],
)
def test_reads_who_is_connected(access: Any, is_administrator: bool) -> None:
    me = {"id": 12, "company_id": 7, "company_domain": "Acme", "access": access}

    assert read_company(me) == company(user_id=12, is_administrator=is_administrator)


@pytest.mark.parametrize("domain", [None, "", 7])
def test_an_answer_without_a_company_is_no_answer(domain: Any) -> None:
    with pytest.raises(Retryable):
        read_company({"id": 12, "company_domain": domain})


@pytest.mark.parametrize(
    ("known", "given"),
    [
        ({"company_id": None, "pipedrive_company": None}, {}),
        ({"company_id": None, "pipedrive_company": ACME}, {}),
        ({"company_id": 7, "pipedrive_company": "https://old-name.pipedrive.com"}, {}),
        ({"company_id": 7, "pipedrive_company": ACME}, {"id": None}),
    ],
)
def test_the_same_company_is_accepted_under_any_name(known: dict[str, Any], given: dict[str, Any]) -> None:
    connector = Connector(**known)
    join(connector, company(**given))

    assert (connector.company_id, connector.pipedrive_company) == (7 if given == {} else known["company_id"], ACME)


@pytest.mark.parametrize(
    ("known", "given"),
    [
        ({"company_id": 8, "pipedrive_company": ACME}, {}),
        ({"company_id": 8, "pipedrive_company": None}, {}),
        ({"company_id": None, "pipedrive_company": "https://other.pipedrive.com"}, {}),
        ({"company_id": 7, "pipedrive_company": "https://other.pipedrive.com"}, {"id": None}),
    ],
)
def test_another_company_is_refused_and_nothing_changed(known: dict[str, Any], given: dict[str, Any]) -> None:
    connector = Connector(**known)
    with pytest.raises(ConfigurationError) as caught:
        join(connector, company(**given))

    assert caught.value.reason == "other_company"
    assert {name: getattr(connector, name) for name in known} == known
