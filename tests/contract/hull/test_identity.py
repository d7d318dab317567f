"""Who is meant: precedence, merging, links, and the shapes of e-mails and domains."""

from __future__ import annotations

from typing import Any

import pytest

from sandbox.hull.identity import registrable_domain
from tests.contract.hull.sender import Hull, account_message, link_message, user_message

Claims = dict[str, str]


def test_the_first_claim_that_matches_decides_and_the_others_are_added(hull: Hull) -> None:
    hull.send(
        user_message({"email": "Ada@Acme.com "}, {"n": 1}),
        user_message({"email": "ada@acme.com", "anonymous_id": "pipedrive:1"}, {"n": 2}),
        user_message({"external_id": "e1", "anonymous_id": "pipedrive:1"}, {"n": 3}),
        user_message({"external_id": "e1", "email": "ada@globex.com", "anonymous_id": "pipedrive:2"}, {"n": 4}),
    )

    assert len(hull.state.users) == 1
    ada = hull.user(external_id="e1")
    assert (ada.natural, ada.anonymous_ids, ada.attributes) == (
        "ada@globex.com",
        ["pipedrive:1", "pipedrive:2"],
        {"n": 4},
    )
    assert hull.state.counts["users_created"] == 1
    assert hull.reasons() == []


def test_a_released_email_belongs_to_no_user(hull: Hull) -> None:
    hull.send(
        user_message({"email": "old@acme.com", "anonymous_id": "p:1"}),
        user_message({"email": "new@acme.com", "anonymous_id": "p:1"}),
    )
    hull.send(user_message({"email": "old@acme.com"}))

    assert len(hull.state.users) == 2


@pytest.mark.parametrize(
    ("first", "second", "joint", "survivor"),
    [
        pytest.param(
            {"external_id": "e1"},
            {"email": "a@x.com"},
            {"external_id": "e1", "email": "a@x.com"},
            0,
            id="external_id over email",
        ),
        pytest.param(
            {"email": "a@x.com"},
            {"external_id": "e1"},
            {"external_id": "e1", "email": "a@x.com"},
            1,
            id="whichever came first",
        ),
        pytest.param(
            {"anonymous_id": "p:1"},
            {"email": "a@x.com"},
            {"email": "a@x.com", "anonymous_id": "p:1"},
            1,
            id="email over anonymous_id",
        ),
        pytest.param(
            {"external_id": "e1"},
            {"anonymous_id": "p:1"},
            {"external_id": "e1", "anonymous_id": "p:1"},
            0,
            id="external over anonymous",
        ),
    ],
)
def test_records_met_by_one_message_are_merged(
    hull: Hull, first: Claims, second: Claims, joint: Claims, survivor: int
) -> None:
    hull.send(user_message(first, {"x": "1", "one": 1}), user_message(second, {"x": "2", "two": 2}))
    before = [hull.user(**first), hull.user(**second)]

    hull.send(user_message(joint))

    kept = hull.user(**joint)
    assert kept is before[survivor]
    assert kept.attributes == {"x": "12"[survivor], "one": 1, "two": 2}
    assert hull.state.find(before[1 - survivor].id) is kept
    assert hull.state.counts["merges"] == 1
    assert [event["event"] for event in (kept.events or {}).values()] == ["User merged"]
    assert all(hull.user(**{name: value}) is kept for name, value in joint.items())


def test_different_external_ids_are_never_merged(hull: Hull) -> None:
    hull.send(
        user_message({"external_id": "e1", "email": "a@x.com"}),
        user_message({"external_id": "e2", "anonymous_id": "p:2"}),
    )

    hull.send(user_message({"email": "a@x.com", "anonymous_id": "p:2"}, {"x": 1}))

    assert len(hull.state.users) == 2
    assert hull.user(external_id="e1").attributes == {"x": 1}
    assert hull.user(anonymous_id="p:2").external_id == "e2"
    assert hull.state.counts["conflicts"] == 1


def test_another_external_id_with_the_same_email_is_another_user(hull: Hull) -> None:
    hull.send(
        user_message({"external_id": "e1", "email": "a@x.com"}), user_message({"external_id": "e2", "email": "a@x.com"})
    )

    assert hull.user(external_id="e1") is not hull.user(external_id="e2")
    assert hull.user(external_id="e2").natural == "a@x.com"
    assert hull.user(email="a@x.com").external_id == "e1"


def test_an_anonymous_id_stays_with_the_holder_of_another_external_id(hull: Hull) -> None:
    hull.send(
        user_message({"external_id": "e1", "anonymous_id": "p:1"}),
        user_message({"external_id": "e2", "anonymous_id": "p:1"}),
    )

    assert hull.user(anonymous_id="p:1").external_id == "e1"
    assert hull.user(external_id="e2").anonymous_ids == []
    assert hull.state.counts["conflicts"] == 1


def test_a_hull_id_comes_first_and_never_creates(hull: Hull) -> None:
    hull.send(user_message({"email": "a@x.com"}))
    ada = hull.user(email="a@x.com")

    hull.send(user_message(ada.id, {"x": 1}), user_message({"id": ada.id, "email": "b@x.com"}, {"y": 1}))
    hull.send(user_message("5ee10000000000000000ffff", {"x": 1}))

    assert ada.attributes == {"x": 1, "y": 1}
    assert ada.natural == "b@x.com"
    assert len(hull.state.users) == 1
    assert hull.reasons() == ["no such user, and none is to be created"]


@pytest.mark.parametrize(
    ("claims", "reason"),
    [
        ({}, "no identifier"),
        ({"email": "", "anonymous_id": None}, "no identifier"),
        ({"email": "not an address"}, "no identifier; 'not an address' is not a valid email"),
        ({"anonymous_id": ["p:1"]}, "no identifier; anonymous_id is neither text nor a whole number"),
    ],
)
def test_without_an_identifier_a_message_is_dropped(hull: Hull, claims: dict[str, Any], reason: str) -> None:
    hull.send(user_message(claims, {"x": 1}))

    assert len(hull.state.users) == 0
    assert hull.reasons() == [reason]
    assert hull.state.log[0]["event"] == "incoming.user.error"


def test_an_unusable_claim_is_logged_and_the_others_decide(hull: Hull) -> None:
    hull.send(user_message({"email": "nonsense", "anonymous_id": "p:1"}))

    assert hull.user(anonymous_id="p:1").natural is None
    assert hull.reasons() == ["'nonsense' is not a valid email"]


def test_a_numeric_external_id_is_text(hull: Hull) -> None:
    hull.send(user_message({"external_id": 12}), user_message({"external_id": "12"}))

    assert len(hull.state.users) == 1


def test_create_false_only_updates(hull: Hull) -> None:
    hull.send(user_message({"email": "a@x.com"}, {"n": 1}, create=False))
    assert len(hull.state.users) == 0

    hull.send(user_message({"email": "a@x.com"}, {"n": 2}), user_message({"email": "a@x.com"}, {"n": 3}, create=False))
    assert hull.user(email="a@x.com").attributes == {"n": 3}


@pytest.mark.parametrize(
    ("text", "domain"),
    [
        ("acme.com", "acme.com"),
        ("https://www.Shop.Acme.co.uk:8080/about?x=1", "acme.co.uk"),
        ("http://someone@acme.com/", "acme.com"),
        ("student.eit.edu.au", "eit.edu.au"),
        ("acme.com.", "acme.com"),
        ("münchen.de", "xn--mnchen-3ya.de"),
        ("Acme", None),
        ("Acme Inc. Logistics", None),
        ("co.uk", None),
        ("10.0.0.1", None),
        ("", None),
        ("-acme.com", None),
    ],
)
def test_the_registrable_domain(text: str, domain: str | None) -> None:
    assert registrable_domain(text) == domain


def test_accounts_are_one_by_their_registrable_domain(hull: Hull) -> None:
    hull.send(
        account_message({"domain": "www.acme.com"}, {"n": 1}),
        account_message({"domain": "https://shop.acme.com/"}, {"n": 2}),
    )

    assert len(hull.state.accounts) == 1
    assert hull.account(domain="acme.com").attributes == {"n": 2}


def test_a_freemail_domain_is_no_account(hull: Hull) -> None:
    hull.send(
        account_message({"domain": "gmail.com", "anonymous_id": "pipedrive:1"}),
        account_message({"domain": "gmail.com"}),
    )

    assert hull.account(anonymous_id="pipedrive:1").natural is None
    assert len(hull.state.accounts) == 1
    assert hull.reasons() == ["no identifier"]


def test_account_precedence_and_merging(hull: Hull) -> None:
    hull.send(
        account_message({"anonymous_id": "pipedrive:1"}, {"shell": True}),
        account_message({"domain": "acme.com"}, {"n": 1}),
    )

    hull.send(link_message({"email": "ada@acme.com"}, {"anonymous_id": "pipedrive:1"}))
    hull.send(account_message({"external_id": "a1", "domain": "acme.com", "anonymous_id": "pipedrive:1"}))

    acme = hull.account(external_id="a1")
    assert (acme.natural, acme.anonymous_ids, acme.attributes) == ("acme.com", ["pipedrive:1"], {"n": 1, "shell": True})
    assert hull.user(email="ada@acme.com").account_id == acme.id
    assert hull.state.members == {acme.id: {hull.user(email="ada@acme.com").id}}
    assert len(hull.state.accounts) == 1


def test_both_claims_write_to_the_account_and_link_the_user(hull: Hull) -> None:
    hull.send(link_message({"email": "ada@acme.com"}, {"anonymous_id": "pipedrive:44"}, {"pipedrive/id": 44}))

    acme = hull.account(anonymous_id="pipedrive:44")
    assert acme.attributes == {"pipedrive/id": 44}
    assert hull.user(email="ada@acme.com").attributes == {}
    assert hull.user(email="ada@acme.com").account_id == acme.id
    assert hull.state.links == 1


def test_a_user_has_one_account_and_linking_again_moves_it(hull: Hull) -> None:
    ada = {"email": "ada@acme.com"}
    hull.send(
        link_message(ada, {"domain": "acme.com"}),
        link_message(ada, {"domain": "globex.com"}),
        link_message(ada, {"domain": "globex.com"}),
    )

    assert hull.user(**ada).account_id == hull.account(domain="globex.com").id
    assert hull.state.members[hull.account(domain="acme.com").id] == set()
    assert hull.state.links == 1


def test_no_account_claim_means_the_account_the_user_has(hull: Hull) -> None:
    ada = {"email": "ada@acme.com"}
    hull.send(
        link_message(ada, None, {"n": 1}), link_message(ada, {"domain": "acme.com"}), link_message(ada, None, {"n": 2})
    )

    assert hull.account(domain="acme.com").attributes == {"n": 2}
    assert hull.reasons() == ["the user is linked to no account"]
    assert hull.state.log[0]["event"] == "incoming.account.error"


def test_an_unusable_account_claim_creates_no_user(hull: Hull) -> None:
    hull.send(link_message({"email": "ada@acme.com"}, {"domain": "Acme"}))

    assert len(hull.state.users) == len(hull.state.accounts) == 0
    assert hull.reasons() == ["no identifier; 'Acme' is not a valid domain"]


def test_merged_users_keep_the_winners_account_or_take_the_losers(hull: Hull) -> None:
    hull.send(link_message({"anonymous_id": "p:1"}, {"domain": "acme.com"}), user_message({"email": "a@x.com"}))
    hull.send(user_message({"email": "a@x.com", "anonymous_id": "p:1"}))
    acme = hull.account(domain="acme.com")
    assert hull.user(email="a@x.com").account_id == acme.id

    hull.send(
        link_message({"anonymous_id": "p:2"}, {"domain": "globex.com"}),
        user_message({"email": "a@x.com", "anonymous_id": "p:2"}),
    )
    assert hull.user(email="a@x.com").account_id == acme.id
    assert hull.state.links == 1


def test_alias_adds_merges_and_unalias_removes(hull: Hull) -> None:
    ada = {"email": "ada@acme.com"}
    hull.send(
        user_message({"anonymous_id": "z:1"}, {"x": 1}), user_message(ada, {"anonymous_id": "z:1"}, type_="alias")
    )
    assert len(hull.state.users) == 1
    assert hull.user(**ada).attributes == {"x": 1}

    hull.send(
        user_message(ada, {"anonymous_id": "z:2"}, type_="alias"),
        user_message(ada, {"anonymous_id": "z:1"}, type_="unalias"),
    )
    assert hull.user(**ada).anonymous_ids == ["z:2"]

    hull.send(
        account_message({"domain": "acme.com"}, {"anonymous_id": "z:1"}, type_="alias"),
        user_message(ada, {}, type_="alias"),
    )
    assert hull.account(anonymous_id="z:1").natural == "acme.com"
    assert hull.reasons() == ["no anonymous_id in the body"]


def test_matching_accounts_by_email_domain_is_an_option(hull: Hull) -> None:
    hull.send(account_message({"domain": "acme.com"}), user_message({"email": "ada@acme.com"}))
    assert hull.user(email="ada@acme.com").account_id is None

    hull.state.match_accounts_by_email_domain = True
    hull.send(user_message({"email": "bo@mail.acme.com"}), user_message({"email": "cyd@gmail.com"}))
    assert hull.user(email="bo@mail.acme.com").account_id == hull.account(domain="acme.com").id
    assert hull.user(email="cyd@gmail.com").account_id is None
