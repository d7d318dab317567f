"""Accounts: what slows down guessing, second factors, sessions, keys for scripts, single sign-on."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pyotp
import pytest
from flask import Flask
from freezegun import freeze_time
from sqlalchemy import text

from db import audit, login_attempt
from db import operator as rows
from db.session import transaction
from pipeline import settings as environment
from pipeline.accounts import logins, operators, second_factor
from pipeline.accounts.logins import LoginOrigin, LoginRefused
from pipeline.domain.kinds import Role
from pipeline.settings import settings
from pipeline.slow_work import Overloaded
from pipeline.sync import upkeep
from pipeline.sync.connectors import setup
from tests import accounts
from tests.integration.console.conftest import PASSWORD, Call, ConsoleClient

NAME = "ana@acme.test"
OFFICE = LoginOrigin(address="192.0.2.1")
HOME = LoginOrigin(address="198.51.100.7")


@pytest.fixture
def ana(database: str) -> int:
    """An operator with a password."""
    assert database
    return accounts.add("Ana@acme.test", PASSWORD, Role.OPERATOR).id


@pytest.fixture
def browser(ana: int, anonymous: ConsoleClient) -> ConsoleClient:
    """The same, logged in."""
    assert ana
    return enter(anonymous)


def enter(console: ConsoleClient, password: str = PASSWORD) -> ConsoleClient:
    assert console.client.post("/login", data={"name": NAME, "password": password}).status_code == 303
    cookie = console.client.get_cookie("session")
    assert cookie
    console.token = cookie.value
    return console


def fails(caller: LoginOrigin = OFFICE, name: str = NAME) -> float:
    """Log in with a wrong password; returns how long the next attempt waits."""
    with pytest.raises(LoginRefused) as refused:
        logins.log_in(name, "wrong password", caller)
    return refused.value.wait_s


def works(caller: LoginOrigin = OFFICE) -> logins.LoggedIn:
    found = logins.log_in(NAME, PASSWORD, caller)
    assert isinstance(found, logins.LoggedIn)
    return found


def change(sql: str, **values: Any) -> None:
    with transaction() as session:
        session.execute(text(sql), values)


def audited(action: str) -> list[tuple[str, str, Any]]:
    with transaction() as session:
        found = [each for each in audit.latest_entries(session) if each.action == action]
        return [(each.operator, each.subject, each.detail) for each in found]


# --- guessing ------------------------------------------------------------------------------------------------------


def test_the_sixth_wrong_password_waits_and_so_does_the_right_one_at_that_place(ana: int) -> None:
    assert [fails() for _ in range(5)] == [0] * 5

    assert 0 < fails() <= 10
    with pytest.raises(LoginRefused):
        logins.log_in(NAME, PASSWORD, OFFICE)
    change("UPDATE login_attempts SET blocked_until = now() - interval '1 second'")
    works()


def test_each_further_failure_doubles_the_wait_up_to_a_quarter_of_an_hour(ana: int) -> None:
    waits = []
    for _ in range(14):
        fails()
        with transaction() as session:
            left = (
                "SELECT max(extract(epoch FROM blocked_until - last_at)) FROM login_attempts WHERE place_digest <> ''"
            )
            waits.append(session.scalar(text(f"{left} AND name_digest <> ''")))
        change("UPDATE login_attempts SET blocked_until = NULL")

    assert [round(each) for each in waits if each] == [10, 20, 40, 80, 160, 320, 640, 900, 900, 900]


def test_guesses_from_elsewhere_do_not_lock_an_operator_out(ana: int) -> None:
    for _ in range(6):
        fails(HOME)

    works(OFFICE)


def test_guesses_from_many_addresses_wait_and_a_known_browser_does_not(ana: int) -> None:
    known = replace(OFFICE, device=works(OFFICE).device)
    waits = [fails(LoginOrigin(address=f"203.0.113.{number}")) for number in range(22)]

    assert waits[:20] == [0] * 20
    assert all(0 < each <= 5 for each in waits[20:])
    with pytest.raises(LoginRefused):
        logins.log_in(NAME, PASSWORD, HOME)
    works(known)


@pytest.mark.parametrize("cookie", ["", "a", "a.b", "nonce.00", ".", "\ud800.\ud800"])
def test_an_invented_device_is_none(ana: int, cookie: str) -> None:
    for _ in range(6):
        fails(replace(OFFICE, device=cookie))

    assert fails(OFFICE) > 0


def test_a_device_is_known_for_the_name_that_logged_in_alone(ana: int) -> None:
    device = works().device
    for _ in range(5):
        fails(replace(OFFICE, device=device), name="bo")

    assert fails(OFFICE, name="bo") > 0


def test_one_typo_a_day_locks_no_office(ana: int) -> None:
    for _ in range(60):
        fails()
        works()

    assert fails() == 0


def test_who_tries_many_names_from_one_address_waits(ana: int) -> None:
    waits = [fails(name=f"somebody{number}") for number in range(31)]

    assert waits[:30] == [0] * 30
    assert waits[30] > 0


def test_a_network_of_ipv6_is_one_place(ana: int) -> None:
    for number in range(5):
        fails(LoginOrigin(address=f"2001:db8::{number}"))

    assert fails(LoginOrigin(address="2001:db8::ffff")) > 0
    assert fails(LoginOrigin(address="2001:db8:0:1::1")) == 0
    assert [fails(LoginOrigin(address="::ffff:192.0.2.9")) for _ in range(5)] == [0] * 5
    assert fails(LoginOrigin(address="192.0.2.9")) > 0


def test_parallel_guesses_are_counted_before_they_are_tried(ana: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """All of them are inside Argon2 at the same time: only the free ones may get there."""
    tried, gate = [], threading.Event()

    def slow(_known: str, given: str) -> bool:
        tried.append(given)
        gate.wait(10)
        return False

    monkeypatch.setattr(logins.passwords, "verify", slow)
    threads = [threading.Thread(target=fails) for _ in range(12)]
    for each in threads:
        each.start()
    for each in threads[:]:
        if not gate.is_set() and sum(other.is_alive() for other in threads) <= logins.NAME_AT_PLACE.free:
            gate.set()
        each.join(0.2)
    gate.set()
    for each in threads:
        each.join()

    assert len(tried) == logins.NAME_AT_PLACE.free


def test_what_waits_stores_nothing(ana: int) -> None:
    for number in range(30):
        fails(name=f"somebody{number}")

    def stored() -> int:
        with transaction() as session:
            return session.scalar(text("SELECT count(*) FROM login_attempts")) or 0

    before = stored()
    assert fails(name="a name never seen") > 0
    assert stored() == before


def test_an_attempt_that_was_never_tried_does_not_count(ana: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """More than its five free ones find the lane of passwords full; then the password is read."""

    def full(_known: str, _given: str) -> bool:
        raise Overloaded("passwords")

    with monkeypatch.context() as patch:
        patch.setattr(logins.passwords, "verify", full)
        for _ in range(7):
            with pytest.raises(Overloaded):
                logins.log_in(NAME, PASSWORD, OFFICE)

    assert [fails() for _ in range(5)] == [0] * 5


def test_a_login_does_not_end_the_wait_that_another_name_began_at_its_place(ana: int) -> None:
    """Who has an account and logs in while guessing other names gains nothing by it."""
    own = logins._reserve(NAME, OFFICE)
    for number in range(29):
        fails(name=f"somebody{number}")
    change("UPDATE login_attempts SET blocked_until = NULL")
    fails(name="one more")

    with transaction() as session:
        login_attempt.forgive(session, own)

    assert fails(name="and one more") > 0


def test_an_attempt_and_a_success_of_one_name_lock_the_counts_in_one_order(ana: int) -> None:
    """The success waits for the count of the place before it holds the count of the name."""
    reserved = logins._reserve(NAME, OFFICE)
    (name, place), _ = reserved.limits[0]
    taken = "SELECT 1 FROM login_attempts WHERE (name_digest, place_digest) = (:name, :place) FOR UPDATE"
    forgiving = threading.Thread(target=_forgive, args=(reserved,))
    with transaction() as session:
        session.execute(text(taken), {"name": b"", "place": place})
        forgiving.start()
        _wait_for_a_lock()
        session.execute(text(f"{taken} NOWAIT"), {"name": name, "place": place})
    forgiving.join()


def _forgive(reserved: login_attempt.ReservedAttempt) -> None:
    with transaction() as session:
        login_attempt.forgive(session, reserved)


def _wait_for_a_lock() -> None:
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        with transaction() as session:
            if session.scalar(text(waiting)):
                return
    pytest.fail("nobody waits for a lock")


def test_failures_decay(ana: int) -> None:
    for number in range(30):
        fails(name=f"somebody{number}")
    change("UPDATE login_attempts SET blocked_until = NULL, last_at = last_at - interval '20 minutes'")

    assert [fails(name=f"other{number}") for number in range(10)] == [0] * 10


def test_unlock_ends_every_wait_of_a_name(ana: int, admin: ConsoleClient) -> None:
    for _ in range(6):
        fails()

    assert admin.post(f"/operators/{ana}/unlock").status_code == 303

    works()
    assert audited("operator.unlock") == [("admin@acme.test", NAME, None)]


def test_failed_logins_are_audited_without_what_was_typed(ana: int) -> None:
    fails()
    fails(name="correct horse battery")

    assert audited("operator.login_failed") == [
        ("unknown", "unknown", {"why": "password"}),
        (NAME, NAME, {"why": "password"}),
    ]


def test_names_and_addresses_of_attempts_are_stored_as_digests(ana: int) -> None:
    fails()

    with transaction() as session:
        stored = session.execute(text("SELECT name_digest, place_digest FROM login_attempts")).all()
    assert len(stored) == 3
    assert not any(b"ana" in bytes(each) or b"192" in bytes(each) for row in stored for each in row)


def test_old_attempts_ended_sessions_and_long_expired_keys_are_deleted(browser: ConsoleClient, ana: int) -> None:
    me = operators.who_is(browser.token)
    assert me
    fails()
    operators.create_key(me, "old")
    change("UPDATE login_attempts SET last_at = now() - interval '25 hours'")
    change("UPDATE operator_sessions SET created_at = now() - interval '8 days'")
    change("UPDATE api_keys SET expires_at = now() - interval '31 days'")

    upkeep.tidy()

    with transaction() as session:
        left = [
            session.scalar(text(f"SELECT count(*) FROM {table}"))  # noqa: S608 - names of this line
            for table in ("login_attempts", "operator_sessions", "api_keys")
        ]
    assert left == [0, 0, 0]


# --- passwords -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("password", "why"),
    [
        ("short", "10 to 200 characters"),
        ("x" * 201, "10 to 200 characters"),
        ("1234567890", "top-100 common password"),
        ("password123456", "similar to a commonly used password"),
        ("aaaaaaaaaaaaaaaa", "easy to guess"),
        ("ana@acme.test", "easy to guess"),
        ("hullpipedrive", "easy to guess"),
    ],
)
def test_a_weak_password_is_refused_and_the_reason_named(ana: int, password: str, why: str) -> None:
    with pytest.raises(operators.OperatorRefused, match=f"{why}|uncommon words" if "easy" in why else why):
        accounts.change(NAME, password=password)


def test_a_password_is_compared_whole(database: str) -> None:
    long = "correct horse " * 14
    accounts.add(NAME, long[:196], Role.VIEWER)

    with pytest.raises(LoginRefused):
        logins.log_in(NAME, long[:196] + "and more", OFFICE)
    assert logins.log_in(NAME, long[:196], OFFICE)


def test_a_new_password_ends_other_sessions_and_revokes_keys(browser: ConsoleClient, app: Flask) -> None:
    other = enter(ConsoleClient(app.test_client()))
    me = operators.who_is(browser.token)
    assert me
    key = operators.create_key(me, "nightly")

    wrong = browser.post("/account/password", old="wrong password", new="another long one")
    right = browser.post("/account/password", old=PASSWORD, new="another long one")

    assert (wrong.status_code, right.status_code) == (400, 303)
    assert "API keys revoked: 1" in browser.text("/account"), "who changed it goes on"
    assert other.get("/").status_code == 303
    assert operators.holder_of(key) is None
    enter(other, "another long one")


def copy_of(console: ConsoleClient, app: Flask) -> ConsoleClient:
    """A thief's browser, with a copy of the session's token."""
    cookie = console.client.get_cookie("session")
    assert cookie
    thief = ConsoleClient(app.test_client(), cookie.value)
    thief.client.set_cookie("session", cookie.value)
    assert thief.get("/").status_code == 200
    return thief


@pytest.mark.parametrize("way", ["password", "second factor", "log out"])
def test_a_new_token_ends_copies_of_the_old_one(browser: ConsoleClient, app: Flask, way: str) -> None:
    other, thief = enter(ConsoleClient(app.test_client())), copy_of(browser, app)

    if way == "password":
        browser.post("/account/password", old=PASSWORD, new="another long one")
    elif way == "second factor":
        set_up(browser)
    else:
        browser.post("/account/sessions/others/end")

    assert [each.get("/").status_code for each in (browser, thief, other)] == [200, 303, 303]
    assert browser.post("/account/sessions/others/end").status_code == 303, "its forms belong to the new token"


@pytest.mark.parametrize("what", ["password", "disabled", "second factor"])
def test_a_login_that_began_before_a_change_opens_no_session_after_it(
    ana: int, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """The old password is being compared while the change is made."""
    accounts.add("admin_script", None, Role.ADMIN)
    verify = logins.passwords.verify

    def slow(known: str, given: str) -> bool:
        monkeypatch.setattr(logins.passwords, "verify", verify)
        if what == "password":
            accounts.change(NAME, password="another long one")
        elif what == "disabled":
            accounts.change(NAME, state="disabled")
        else:
            change("UPDATE operators SET totp_confirmed_at = now() WHERE name = :name", name=NAME)
        return verify(known, given)

    monkeypatch.setattr(logins.passwords, "verify", slow)
    with pytest.raises(LoginRefused):
        logins.log_in(NAME, PASSWORD, OFFICE)

    with transaction() as session:
        assert rows.sessions_of(session, ana) == []


@pytest.mark.parametrize("path", ["/account/keys", "/account/password"])
def test_what_was_proved_by_the_old_password_is_refused_after_a_new_one(
    browser: ConsoleClient, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    prove = logins.prove

    def slow(*given: Any) -> Any:
        proved = prove(*given)
        change("UPDATE operators SET password_hash = 'another' WHERE name = :name", name=NAME)
        return proved

    monkeypatch.setattr(logins, "prove", slow)
    form = {"name": "nightly", "days": "30", "password": PASSWORD, "old": PASSWORD, "new": "another long one"}

    assert browser.post(path, **form).status_code == 400
    with transaction() as session:
        assert rows.all_keys(session) == []


@pytest.mark.parametrize("way", ["console", "api"])
def test_an_admin_changes_their_own_account_by_its_password_alone(
    admin: ConsoleClient, by_session: Call, way: str
) -> None:
    (me,) = [
        each for each in by_session("GET", "/api/v1/operators")[1]["operators"] if each["name"] == "admin@acme.test"
    ]
    if way == "api":
        base = f"/api/v1/operators/{me['id']}"
        tried = [
            by_session("POST", base, password="another long one")[0],
            by_session("POST", f"{base}/second-factor/off")[0],
        ]
    else:
        base = f"/operators/{me['id']}"
        answers = [admin.post(base, password="another long one"), admin.post(f"{base}/second-factor/off")]
        tried = [each.status_code for each in answers]

    assert tried == [400, 400]
    assert audited("operator.change") == audited("second_factor.off") == []


def test_every_field_of_the_account_has_an_id_and_a_label_of_its_own(browser: ConsoleClient) -> None:
    page = browser.text("/account")
    ids = re.findall(r'\sid="([^"]+)"', page)
    fields = re.findall(r'<(?:input|select) id="([^"]+)"', page)

    assert len(ids) == len(set(ids))
    assert {"f-factor-proof", "f-key-proof"} < set(fields)
    assert set(fields) <= set(re.findall(r'<label for="([^"]+)"', page))


# --- keys for scripts ----------------------------------------------------------------------------------------------


def create_key(console: ConsoleClient, **form: Any) -> Any:
    return console.post("/account/keys", **{"name": "nightly", "days": "30", "password": PASSWORD} | form)


def test_a_key_needs_the_password_is_shown_once_and_can_be_revoked(browser: ConsoleClient) -> None:
    refused = create_key(browser, password="wrong password")
    page = create_key(browser, role="viewer").text
    (key,) = re.findall(operators.PREFIX + r"[\w-]+", page)
    holder = operators.holder_of(key)

    assert (refused.status_code, operators.PREFIX in refused.text) == (400, False)
    assert holder is not None
    assert (holder.name, holder.role, holder.key) == (NAME, "viewer", "nightly")
    assert key not in browser.text("/account")
    with transaction() as session:
        (row,) = rows.keys_of(session, holder.id)
    assert browser.post(f"/account/keys/{row.id}/revoke").status_code == 303
    assert operators.holder_of(key) is None
    assert [action for action, *_ in (audited("key.add") + audited("key.revoke"))] == [NAME, NAME]


@pytest.mark.parametrize(
    "form",
    [
        {"role": "admin"},
        {"days": "0"},
        {"days": "367"},
        {"days": "soon"},
        {"days": ""},
        {"name": "night\x1b]0;ly"},
    ],
)
def test_a_key_is_never_above_its_owner_and_always_expires(browser: ConsoleClient, form: dict[str, str]) -> None:
    assert create_key(browser, **form).status_code == 400


def test_a_key_ends_when_it_expires(browser: ConsoleClient) -> None:
    me = operators.who_is(browser.token)
    assert me
    key = operators.create_key(me, "nightly", days=1)
    assert operators.holder_of(key)

    change("UPDATE api_keys SET expires_at = now() - interval '1 second'")

    assert operators.holder_of(key) is None


def test_a_key_loses_what_its_owner_loses(browser: ConsoleClient) -> None:
    me = operators.who_is(browser.token)
    assert me
    key = operators.create_key(me, "nightly")

    accounts.change(NAME, role=Role.VIEWER)
    lowered = operators.holder_of(key)
    accounts.add("admin_script", None, Role.ADMIN)
    accounts.change(NAME, state="disabled")
    accounts.change(NAME, state="active")

    assert lowered is not None
    assert lowered.role == "viewer"
    assert operators.holder_of(key) is None, "disabled and enabled again, the key stays revoked"


@pytest.mark.parametrize("way", ["console", "api"])
def test_an_admin_sees_and_revokes_every_key(
    browser: ConsoleClient, admin: ConsoleClient, admin_script: Call, way: str
) -> None:
    me = operators.who_is(browser.token)
    assert me
    key = operators.create_key(me, "nightly")

    (theirs,) = [each for each in admin_script("GET", "/api/v1/operators/keys")[1]["keys"] if each["owner"] == NAME]
    assert "nightly" in admin.text("/operators")
    if way == "api":
        assert admin_script("POST", f"/api/v1/operators/keys/{theirs['id']}/revoke") == (200, {"done": "revoked"})
    else:
        assert admin.post(f"/operators/keys/{theirs['id']}/revoke").status_code == 303

    assert operators.holder_of(key) is None
    assert audited("key.revoke") == [("admin@acme.test", "nightly", {"key": theirs["id"]})]


def test_acts_of_a_key_name_it_and_the_address(ana: int, admin_script: Call) -> None:
    admin_script("POST", f"/api/v1/operators/{ana}/unlock")

    entries = admin_script("GET", "/api/v1/audit")[1]["entries"]
    assert [each["origin"] for each in entries if each["action"] == "operator.unlock"] == ["127.0.0.1, key test"]


# --- who may change who can log in ------------------------------------------------------------------------------------


def test_a_key_cannot_change_who_can_log_in(ana: int, admin_script: Call) -> None:
    theirs = f"/api/v1/operators/{ana}"
    tried = [
        admin_script("POST", "/api/v1/operators", name="eve", role="admin", password="another long one"),
        *(
            admin_script("POST", theirs, **each)
            for each in ({"role": "admin"}, {"password": "another long one"}, {"state": "active"})
        ),
        admin_script("POST", theirs, connectors="all"),
        admin_script("POST", f"{theirs}/second-factor/off"),
    ]

    assert [status for status, _ in tried] == [403] * 6
    assert "pipeline operators" in tried[0][1]["next_step"]
    assert admin_script("POST", theirs, state="disabled") == (200, {"done": "changed"}), (
        "an emergency waits for no password"
    )


def test_a_session_of_long_ago_confirms_the_password_first(browser: ConsoleClient, ana: int) -> None:
    change("UPDATE operators SET role = 'admin' WHERE id = :id", id=ana)
    other = accounts.add("bo", None, Role.VIEWER).id
    change("UPDATE operator_sessions SET proved_at = now() - interval '11 minutes'")
    acts: list[tuple[str, dict[str, str]]] = [
        ("/operators", {"name": "eve", "password": "another long one", "role": "admin"}),
        (f"/operators/{other}", {"role": "admin"}),
        (f"/operators/{other}", {"state": "active"}),
        (f"/operators/{other}/limit", {"all": "1"}),
        (f"/operators/{other}/second-factor/off", {}),
    ]

    refused = [browser.post(path, **form) for path, form in acts]
    wrong = browser.post("/account/confirm", password="wrong password").status_code
    confirmed = browser.post("/account/confirm", password=PASSWORD, next="/operators")
    done = [browser.post(path, **form).status_code for path, form in acts]

    assert [each.status_code for each in refused] == [403] * 5
    assert "Confirm your password" in refused[0].text
    assert (wrong, confirmed.status_code, confirmed.headers["Location"]) == (400, 303, "/operators")
    assert done == [303] * 5


def test_an_operator_cannot_revoke_keys_of_others(browser: ConsoleClient, viewer: ConsoleClient) -> None:
    me = operators.who_is(browser.token)
    assert me
    operators.create_key(me, "nightly")
    with transaction() as session:
        (row,) = rows.keys_of(session, me.id)

    assert viewer.post(f"/account/keys/{row.id}/revoke").status_code == 404


# --- sessions ------------------------------------------------------------------------------------------------------


def test_an_open_page_does_not_prolong_a_session_and_a_person_does(browser: ConsoleClient) -> None:
    change("UPDATE operator_sessions SET seen_at = now() - interval '11 hours'")

    def idle_h() -> float:
        with transaction() as session:
            return float(
                session.scalar(text("SELECT extract(epoch FROM now() - seen_at) / 3600 FROM operator_sessions")) or 0
            )

    browser.get("/", **{"X-Live-Update": "1"})
    assert idle_h() > 10
    browser.get("/")
    assert idle_h() < 1


def test_sessions_are_listed_and_ended(browser: ConsoleClient, app: Flask) -> None:
    other = enter(ConsoleClient(app.test_client()))
    page = browser.text("/account")
    (session_id,) = re.findall(r"/account/sessions/(\d+)/end", page)

    assert "127.0.0.1" in page
    assert "this session" in page
    assert browser.post(f"/account/sessions/{session_id}/end").status_code == 303
    assert (browser.get("/").status_code, other.get("/").status_code) == (200, 303)


def test_an_operator_cannot_end_sessions_of_others(browser: ConsoleClient, viewer: ConsoleClient) -> None:
    with transaction() as session:
        me = operators.who_is(browser.token)
        assert me
        (mine,) = rows.sessions_of(session, me.id)

    assert viewer.post(f"/account/sessions/{mine.id}/end").status_code == 404
    assert browser.get("/").status_code == 200


def test_log_out_everywhere_else_leaves_this_session(browser: ConsoleClient, app: Flask) -> None:
    others = [enter(ConsoleClient(app.test_client())) for _ in range(2)]

    browser.post("/account/sessions/others/end")

    assert browser.get("/").status_code == 200
    assert [each.get("/").status_code for each in others] == [303, 303]


def test_a_second_login_in_a_browser_ends_the_first(browser: ConsoleClient) -> None:
    first = browser.token

    enter(browser)

    assert operators.who_is(first) is None


def test_an_admin_ends_all_sessions_of_an_operator(browser: ConsoleClient, admin: ConsoleClient, ana: int) -> None:
    admin.post(f"/operators/{ana}/log-out")

    assert browser.get("/").status_code == 303


def test_logins_and_logouts_are_audited_with_the_address(browser: ConsoleClient) -> None:
    browser.post("/logout")

    with transaction() as session:
        entries = [(each.action, each.operator, each.origin) for each in audit.latest_entries(session)]
    assert entries[:2] == [("operator.logout", NAME, "127.0.0.1"), ("operator.login", NAME, "127.0.0.1")]


# --- second factor -------------------------------------------------------------------------------------------------


def set_up(console: ConsoleClient) -> tuple[str, list[str]]:
    """Turn the second factor on; returns the secret and the recovery codes."""
    page = console.post("/account/second-factor", password=PASSWORD).text
    (secret,) = re.findall(r"type the key <code>([A-Z2-7]+)</code>", page)
    assert "<svg" in page
    done = console.post("/account/second-factor/confirm", code=pyotp.TOTP(secret).now())
    codes = re.findall(r"[0-9a-f]{8}(?:-[0-9a-f]{8}){3}", done.text)  # 128 bits: a fast hash keeps them
    assert len(codes) == second_factor.RECOVERY_CODES
    return secret, codes


def first_step(console: ConsoleClient) -> str:
    """Name and password; returns the ticket of the page that asks for a code."""
    answer = console.client.post("/login", data={"name": NAME, "password": PASSWORD})
    (ticket,) = re.findall('name="ticket" value="([^"]+)"', answer.text)
    assert console.client.get_cookie("session") is None
    return str(ticket)


def second_step(console: ConsoleClient, ticket: str, code: str) -> int:
    return console.client.post("/login/code", data={"ticket": ticket, "code": code}).status_code


def test_with_a_second_factor_a_login_needs_a_code_and_each_code_works_once(browser: ConsoleClient, app: Flask) -> None:
    with freeze_time("2026-11-30 12:00:00"):
        secret, _ = set_up(browser)
    with freeze_time("2026-11-30 12:01:00"):
        console = ConsoleClient(app.test_client())
        ticket, code = first_step(console), pyotp.TOTP(secret).now()
        tried = [second_step(console, ticket, "000000"), second_step(console, ticket, code)]
        again = ConsoleClient(app.test_client())
        tried.append(second_step(again, first_step(again), code))

    assert tried == [401, 303, 401]
    assert console.get("/").status_code == 200


def test_the_first_code_is_entered_once(browser: ConsoleClient) -> None:
    """A stolen session cannot guess the code of a set-up that was left half done."""
    page = browser.post("/account/second-factor", password=PASSWORD).text
    (secret,) = re.findall(r"type the key <code>([A-Z2-7]+)</code>", page)

    wrong = browser.post("/account/second-factor/confirm", code="nothing")
    right = browser.post("/account/second-factor/confirm", code=pyotp.TOTP(secret).now())

    assert (wrong.status_code, right.status_code) == (400, 400)
    assert audited("second_factor.on") == []


def test_a_recovery_code_works_once(browser: ConsoleClient, app: Flask) -> None:
    _, codes = set_up(browser)
    console = ConsoleClient(app.test_client())
    ticket = first_step(console)

    assert second_step(console, ticket, codes[3]) == 303
    other = ConsoleClient(app.test_client())
    assert second_step(other, first_step(other), codes[3]) == 401
    assert audited("second_factor.recovery_code") == [(NAME, NAME, {"left": 9})]


def test_codes_cannot_be_guessed_faster_than_passwords(browser: ConsoleClient, app: Flask) -> None:
    set_up(browser)
    console = ConsoleClient(app.test_client())
    ticket = first_step(console)

    tried = [second_step(console, ticket, f"{number:06}") for number in range(5)]

    assert tried == [401] * 4 + [429], "the right password does not give new free tries"
    assert console.client.post("/login", data={"name": NAME, "password": PASSWORD}).status_code == 429


@pytest.mark.parametrize(
    "ticket", ["", "a.b", "bm90aGluZw==.00", "W10=.00", "WzFd.00", "\u00e9", "WzEsIDFd.", "." * 500]
)
def test_a_ticket_that_is_not_ours_opens_nothing(ana: int, anonymous: ConsoleClient, ticket: str) -> None:
    assert second_step(anonymous, ticket, "123456") == 401


def test_a_ticket_ends_after_five_minutes_and_with_the_password(browser: ConsoleClient, app: Flask) -> None:
    with freeze_time("2026-11-30 12:00:00"):
        secret, codes = set_up(browser)
        console = ConsoleClient(app.test_client())
        ticket = first_step(console)
    with freeze_time("2026-11-30 12:05:01"):
        assert second_step(console, ticket, pyotp.TOTP(secret).now()) == 401
    ticket = first_step(console)
    change("UPDATE operators SET password_hash = 'another' WHERE name = :name", name=NAME)
    assert second_step(console, ticket, codes[0]) == 401


def test_the_second_factor_is_turned_off_with_the_password_or_by_an_admin(
    browser: ConsoleClient, admin: ConsoleClient, ana: int, app: Flask
) -> None:
    set_up(browser)
    assert browser.post("/account/second-factor/off", password="wrong password").status_code == 400
    assert browser.post("/account/second-factor/off", password=PASSWORD).status_code == 303
    enter(ConsoleClient(app.test_client()))
    set_up(browser)
    assert admin.post(f"/operators/{ana}/second-factor/off").status_code == 303
    enter(ConsoleClient(app.test_client()))
    assert [who for who, *_ in audited("second_factor.off")] == ["admin@acme.test", NAME]


def test_the_secret_is_encrypted_and_follows_new_keys(browser: ConsoleClient, ana: int) -> None:
    secret, _ = set_up(browser)
    with transaction() as session:
        sealed = bytes(session.scalar(text("SELECT totp_sealed FROM operators WHERE id = :id"), {"id": ana}) or b"")
    assert secret.encode() not in sealed

    with transaction() as session:
        assert setup.renew_secrets(session) == 1

    with freeze_time("2036-01-01"), transaction() as session:
        assert second_factor.accept(session, ana, pyotp.TOTP(secret).now())


# --- single sign-on ------------------------------------------------------------------------------------------------


@pytest.fixture
def sso(database: str) -> Iterator[None]:
    assert database
    before = settings()
    environment.use(before.replace(sso_header="X-Forwarded-User", sso_proxies=("127.0.0.0/8",)))
    yield
    environment.use(before)


def test_the_proxys_header_logs_an_operator_in(sso: None, ana: int, anonymous: ConsoleClient) -> None:
    answer = anonymous.get("/login?next=/operators", **{"X-Forwarded-User": "Ana@acme.test"})

    assert (answer.status_code, answer.headers["Location"]) == (303, "/operators")
    assert anonymous.get("/", **{"X-Forwarded-User": NAME}).status_code == 200
    assert audited("operator.login")[0] == (NAME, NAME, {"how": "single sign-on"})


def test_a_session_ends_when_the_proxy_names_another_operator(sso: None, ana: int, anonymous: ConsoleClient) -> None:
    anonymous.get("/login", **{"X-Forwarded-User": NAME})

    assert anonymous.get("/", **{"X-Forwarded-User": "bo"}).status_code == 303


def test_single_sign_on_opens_one_session_for_a_browser_and_none_for_an_embedded_page(
    sso: None, ana: int, anonymous: ConsoleClient, app: Flask
) -> None:
    for _ in range(3):
        assert anonymous.get("/login", **{"X-Forwarded-User": NAME}).status_code == 303
    embedded = ConsoleClient(app.test_client()).get("/login", **{"X-Forwarded-User": NAME, "Sec-Fetch-Dest": "image"})

    assert embedded.status_code == 200
    with transaction() as session:
        assert len(rows.sessions_of(session, ana)) == 1


def test_the_header_counts_from_the_proxy_alone(sso: None, ana: int, anonymous: ConsoleClient) -> None:
    answer = anonymous.client.get(
        "/login", headers={"X-Forwarded-User": NAME}, environ_overrides={"REMOTE_ADDR": "192.0.2.1"}
    )

    assert answer.status_code == 200
    assert anonymous.client.get_cookie("session") is None


@pytest.mark.parametrize("state", ["unknown", "disabled"])
def test_single_sign_on_lets_in_active_operators_alone(
    sso: None, ana: int, anonymous: ConsoleClient, state: str
) -> None:
    accounts.add("admin_script", None, Role.ADMIN)
    if state == "disabled":
        accounts.change(NAME, state="disabled")

    answer = anonymous.get("/login", **{"X-Forwarded-User": NAME if state == "disabled" else "eve"})

    assert answer.status_code == 403
    assert anonymous.client.get_cookie("session") is None


def test_without_the_setting_the_header_means_nothing(ana: int, anonymous: ConsoleClient) -> None:
    anonymous.get("/login", **{"X-Forwarded-User": NAME})

    assert anonymous.client.get_cookie("session") is None


def test_an_operator_without_a_password_cannot_log_in_by_one(database: str) -> None:
    accounts.add("sso", None, Role.VIEWER)

    for password in ("", PASSWORD):
        with pytest.raises(LoginRefused):
            logins.log_in("sso", password, OFFICE)


def test_an_operator_without_a_password_makes_keys_after_a_fresh_login(
    sso: None, database: str, anonymous: ConsoleClient
) -> None:
    accounts.add("bo", None, Role.VIEWER)
    anonymous.get("/login", **{"X-Forwarded-User": "bo"})
    cookie = anonymous.client.get_cookie("session")
    assert cookie
    anonymous.token = cookie.value

    assert create_key(anonymous, password="").status_code == 200
    change("UPDATE operator_sessions SET proved_at = now() - interval '11 minutes'")
    assert create_key(anonymous, password="").status_code == 400
