"""The doors of OAuth: who may begin, what a person brings back, and what is refused with nothing stored."""

from __future__ import annotations

import threading
from base64 import b64encode
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import unquote

import pytest
from flask.testing import FlaskClient
from sqlalchemy.exc import OperationalError
from werkzeug.test import TestResponse

from db.authorisation import CLAIM_S, LIFETIME_S
from db.connector import get_connector
from db.session import transaction
from pipeline import connections, wiring
from pipeline.domain.kinds import Entity
from pipeline.errors import ConfigurationError
from tests.authorising import HULL_CREDENTIALS, PUBLIC_URL, Person, installed_app, press_button, replace_api_token
from tests.logs import captured_log
from tests.system import CONNECTOR_ID, HULL_SECRET, SyncSystem
from tests.wsgi_adapter import session_for


@pytest.fixture
def bare(system: SyncSystem) -> Iterator[SyncSystem]:
    """Return a connector that is not connected yet, in an installation with an app."""
    system.change_rows("DELETE FROM credentials WHERE name = 'pipedrive_api_token'")
    system.change_rows("UPDATE connectors SET state = 'paused', pause_reason = 'not_connected'")
    with installed_app(system):
        yield system


@pytest.fixture
def person(bare: SyncSystem) -> Person:
    return Person(bare)


@pytest.fixture
def woken(bare: SyncSystem, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The control tasks that were asked for."""
    names: list[str] = []
    monkeypatch.setattr(
        bare.module("tasks.canvases"), "wake_control", lambda name, countdown_s=None: names.append(name)
    )
    return names


def stored(system: SyncSystem) -> list[str]:
    return [row.name for row in system.rows("SELECT name FROM credentials ORDER BY name")]


def connector(system: SyncSystem) -> Any:
    with transaction() as session:
        return get_connector(session, system.connector_key)


CONNECTED = ["hull_secret", "pipedrive_access_token", "pipedrive_refresh_token"]


@pytest.mark.guide(
    "Add a new Pipedrive Connector",
    "Open Credentials and authorize: the window opens Pipedrive, asks for your consent, and returns to show "
    "which company is connected.",
)
def test_a_person_connects_the_connector(person: Person, woken: list[str]) -> None:
    page = person.authorise()

    system, user = person.system, person.system.company.users[0]
    now = connector(system)
    assert (page.status_code, page.mimetype) == (200, "text/html")
    assert f"acme is connected to {system.company.domain}.pipedrive.com" in page.text
    assert f"user {user.id}" in page.text
    assert "not work yet" not in page.text
    assert stored(system) == CONNECTED
    assert (now.state, now.pause_reason, now.company_id, now.authorised_by, now.pipedrive_company) == (
        "active",
        None,
        system.company.id,
        user.id,
        f"https://{system.company.domain}.pipedrive.com",
    )
    assert woken == ["sweep", "ensure_webhooks", "start_scheduled"]


def test_connecting_changes_no_setting_and_has_changes_fetched_at_once(person: Person) -> None:
    system = person.system
    before = system.rows("SELECT version, document FROM settings_versions")
    system.change_rows(
        "INSERT INTO schedules (connector_key, kind, interval_s, next_run_at)"
        " VALUES (:key, 'incremental', 300, now() + interval '5 minutes')",
        key=system.connector_key,
    )

    person.authorise()

    assert system.rows("SELECT version, document FROM settings_versions") == before
    assert [row.due for row in system.rows("SELECT next_run_at <= now() AS due FROM schedules")] == [True]


def test_the_api_token_of_before_is_forgotten(person: Person) -> None:
    system = person.system
    replace_api_token(system, connector(system))
    assert stored(system) == ["hull_secret", "pipedrive_api_token"]

    person.authorise()
    assert stored(system) == CONNECTED

    replace_api_token(system, connector(system))
    assert stored(system) == ["hull_secret", "pipedrive_api_token"]


@pytest.mark.parametrize(
    "query",
    [
        {},
        HULL_CREDENTIALS | {"secret": "wrong"},
        HULL_CREDENTIALS | {"ship": "5f0000000000000000000000"},
        HULL_CREDENTIALS | {"organization": "other.test"},
        {"connector": CONNECTOR_ID, "invitation": "gAAAAA"},
        {"connector": CONNECTOR_ID, "invitation": "ä"},
        {"connector": "\x00", "invitation": "x"},
        {"connector": CONNECTOR_ID},
    ],
)
def test_beginning_needs_hulls_credentials_or_an_invitation(person: Person, query: dict[str, str]) -> None:
    answer = person.browser.get("/auth/pipedrive", query_string=query)

    assert (answer.status_code, "Location" in answer.headers) == (401, False)
    assert person.system.rows("SELECT 1 FROM oauth_states") == []


@pytest.mark.guide(
    "Add a new Pipedrive Connector",
    "Open Credentials and authorize: the window opens Pipedrive, asks for your consent, and returns to show "
    "which company is connected.",
)
@pytest.mark.parametrize(
    ("method", "path"), [("GET", "/auth"), ("GET", "/auth/"), ("POST", "/auth"), ("POST", "/auth/")]
)
def test_hulls_button_leads_here_too(person: Person, method: str, path: str) -> None:
    begun = person.browser.open(path, method=method, query_string=HULL_CREDENTIALS)

    assert person.browser.get(person.decide(begun)).status_code == 200


def invitation(person: Person) -> str:
    """A link, without the origin."""
    return str(
        person.system.module("sync.connectors.authorisation").invite(connector(person.system)).removeprefix(PUBLIC_URL)
    )


def another_browser(person: Person) -> FlaskClient:
    return person.web.test_client()


@pytest.mark.guide(
    "Add a new Pipedrive Connector",
    "A link from pipeline connectors authorize acme starts the same steps; it is valid for ten minutes and in one browser.",
)
def test_who_was_invited_may_begin_for_ten_minutes(person: Person, monkeypatch: pytest.MonkeyPatch) -> None:
    link = invitation(person)

    assert person.browser.get(person.decide(person.press(link))).status_code == 200
    link = invitation(person)
    authorisation = person.system.module("sync.connectors.authorisation")
    assert authorisation.INVITATION_S == 600
    monkeypatch.setattr(authorisation, "INVITATION_S", -1)
    assert person.browser.get(link).status_code == 401
    assert press_button(person.browser, link).status_code == 401


def test_an_invitation_is_for_one_connector(person: Person) -> None:
    system = person.system
    with transaction() as session:
        other = type(connector(system))(id="5f00000000000000000000b0", name="globex", hull_organization="hull.test")
        session.add(other)
    link = system.module("sync.connectors.authorisation").invite(other).removeprefix(PUBLIC_URL)

    assert person.browser.get(link.replace(other.id, CONNECTOR_ID)).status_code == 401
    assert "Connect globex" in person.browser.get(link).text


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_preview_of_the_link_uses_nothing_up(person: Person, method: str) -> None:
    link = invitation(person)
    for _ in range(3):
        opened = another_browser(person).open(link, method=method)
        assert (opened.status_code, "Set-Cookie" in opened.headers) == (200, False)

    assert person.system.rows("SELECT 1 FROM oauth_states") == []
    assert person.browser.get(person.decide(person.press(link))).status_code == 200


def test_a_look_at_the_address_of_hulls_button_begins_nothing(person: Person) -> None:
    answer = person.browser.head("/auth", query_string=HULL_CREDENTIALS)

    assert (answer.status_code, "Location" in answer.headers) == (200, False)
    assert person.system.rows("SELECT 1 FROM oauth_states") == []


def test_a_form_of_another_site_presses_no_button(person: Person) -> None:
    link = invitation(person)
    answer = press_button(person.browser, link, **{"Sec-Fetch-Site": "cross-site"})

    assert ("Refresh" in answer.headers, "Sign in to Pipedrive" in answer.text) == (False, True)
    assert person.system.rows("SELECT 1 FROM oauth_states") == []


@pytest.mark.guide(
    "Add a new Pipedrive Connector",
    "A link from pipeline connectors authorize acme starts the same steps; it is valid for ten minutes and in one browser.",
)
@pytest.mark.parametrize("spelling", ["", "!", "%0A", "=="])
def test_an_invitation_works_in_one_browser(person: Person, spelling: str) -> None:
    """The same ciphertext may be spelt in several ways: base64 is read leniently."""
    link = invitation(person)
    back = person.decide(person.press(link))
    other = another_browser(person)

    for answer in (other.get(link + spelling), press_button(other, unquote(link + spelling))):
        assert answer.status_code in (400, 401), answer.text
        assert "Location" not in answer.headers
    assert "used already" in other.get(link).text
    assert person.browser.get(back).status_code == 200


def test_an_invitation_is_over_when_the_connector_is_connected(person: Person) -> None:
    link = invitation(person)
    assert person.browser.get(person.decide(person.press(link))).status_code == 200

    assert "used already" in person.browser.get(link).text
    assert press_button(person.browser, link).status_code == 400
    assert person.system.pipedrive.grants.counts["exchanges"] == 1


def test_the_browser_that_used_an_invitation_may_begin_again(person: Person) -> None:
    link = invitation(person)
    earlier = person.decide(person.press(link))
    back = person.decide(person.press(link))

    assert person.browser.get(earlier).status_code == 400
    assert person.browser.get(back).status_code == 200
    assert person.system.pipedrive.grants.counts["exchanges"] == 1


def test_a_refusal_leaves_the_invitation_with_its_browser(person: Person) -> None:
    link = invitation(person)
    denied = person.decide(person.press(link), "deny")
    assert "allow access" in person.browser.get(denied).text
    assert person.browser.get(denied).status_code == 400

    assert press_button(another_browser(person), link).status_code == 400
    assert person.browser.get(person.decide(person.press(link))).status_code == 200


def test_of_two_browsers_at_the_same_moment_one_uses_the_invitation(person: Person) -> None:
    link = invitation(person)
    browsers = [another_browser(person) for _ in range(4)]
    barrier = threading.Barrier(len(browsers))

    def press(browser: FlaskClient) -> int:
        barrier.wait(10)
        return press_button(browser, link).status_code

    with ThreadPoolExecutor(len(browsers)) as threads:
        statuses = list(threads.map(press, browsers))

    assert sorted(statuses) == [200, 400, 400, 400]
    assert len(person.system.rows("SELECT 1 FROM oauth_states")) == 1


def test_a_state_deleted_while_it_is_used_connects_nothing(person: Person, monkeypatch: pytest.MonkeyPatch) -> None:
    back = person.decide(person.begin())
    module = person.system.module("sync.connectors.authorisation")
    real = module.read_company

    def read_company(me: Any) -> Any:
        person.system.change_rows("DELETE FROM oauth_states")
        return real(me)

    monkeypatch.setattr(module, "read_company", read_company)

    assert "not started here" in refused(person.browser.get(back), person.system)


def test_another_browser_cannot_finish_and_shows_the_next_step(person: Person) -> None:
    back = person.decide(person.begin())
    other = another_browser(person)
    begun = other.get("/auth", query_string=HULL_CREDENTIALS)
    assert begun.status_code == 302

    for browser in (other, another_browser(person)):
        page = refused(browser.get(back), person.system)
        assert "started in another browser" in page
        assert "browser where you started" in page
        assert "start over" in page
    assert person.system.pipedrive.grants.counts["exchanges"] == 0
    assert person.browser.get(back).status_code == 200


def test_what_another_browser_reads_of_a_finished_one_is_nothing(person: Person) -> None:
    back = person.decide(person.begin())
    assert person.browser.get(back).status_code == 200

    page = another_browser(person).get(back)
    assert (page.status_code, "acme" in page.text) == (400, False)


def test_two_connectors_may_be_begun_in_one_browser(person: Person) -> None:
    first, second = person.decide(person.begin()), person.decide(person.begin())

    assert person.browser.get(first).status_code == 200
    assert person.browser.get(second).status_code == 200


@pytest.mark.parametrize("public_url", [PUBLIC_URL, PUBLIC_URL.replace("http:", "https:")])
def test_the_cookie_is_short_lived_and_for_this_host(person: Person, public_url: str) -> None:
    with installed_app(person.system, public_url=public_url):
        begun = person.browser.get("/auth", query_string=HULL_CREDENTIALS, base_url=public_url)

    is_secure = public_url.startswith("https")
    (cookie,) = begun.headers.getlist("Set-Cookie")
    assert cookie.startswith("__Host-authorisation=" if is_secure else "authorisation=")
    parts = {part.strip() for part in cookie.split(";")[1:]}
    assert {"Max-Age=600", "HttpOnly", "SameSite=Lax", "Path=/"} <= parts
    assert ("Secure" in parts) is is_secure


def test_a_cookie_of_another_form_is_replaced(person: Person) -> None:
    person.browser.set_cookie("authorisation", "x", domain="connector.test")

    assert person.authorise().status_code == 200


def test_begun_at_another_host_it_continues_at_the_public_one(person: Person) -> None:
    """The cookie of the other host would not come back from Pipedrive."""
    begun = person.browser.get("/auth", query_string=HULL_CREDENTIALS, base_url="http://10.0.0.7:8080")
    link = begun.headers["Location"]

    assert (begun.status_code, HULL_SECRET in link) == (303, False)
    assert link.startswith(f"{PUBLIC_URL}/auth/pipedrive?")
    assert person.browser.get(person.decide(person.press(link.removeprefix(PUBLIC_URL)))).status_code == 200


def test_a_repeated_callback_shows_the_same_page(person: Person, woken: list[str]) -> None:
    back = person.decide(person.begin())

    first, second = person.browser.get(back), person.browser.get(back)

    assert (first.status_code, first.text) == (second.status_code, second.text)
    assert "acme is connected to" in first.text
    assert person.system.pipedrive.grants.counts["exchanges"] == 1
    assert woken == ["sweep", "ensure_webhooks", "start_scheduled"]


def test_a_state_is_good_for_one_code(person: Person) -> None:
    back = person.decide(person.begin())

    assert person.browser.get(back).status_code == 200
    assert person.browser.get(back.replace("code=", "code=x")).status_code == 400
    assert person.system.pipedrive.grants.counts["exchanges"] == 1


def same_browser(person: Person) -> FlaskClient:
    """Another tab of it."""
    tab, cookie = person.web.test_client(), person.browser.get_cookie("authorisation", domain="connector.test")
    assert cookie
    tab.set_cookie("authorisation", cookie.value, domain="connector.test")
    return tab


def test_a_callback_that_comes_while_it_is_finished_waits(person: Person, monkeypatch: pytest.MonkeyPatch) -> None:
    back = person.decide(person.begin())
    within: list[TestResponse] = []
    module = person.system.module("sync.connectors.authorisation")
    real = module.read_company

    def read_company(me: Any) -> Any:
        if not within:
            within.append(same_browser(person).get(back))
        return real(me)

    monkeypatch.setattr(module, "read_company", read_company)

    assert person.browser.get(back).status_code == 200
    assert (within[0].status_code, within[0].headers["Refresh"]) == (503, "2")
    assert "being completed" in within[0].text
    assert person.system.pipedrive.grants.counts["exchanges"] == 1


@pytest.mark.parametrize("path", ["/oauth/token", "/api/v1/users/me"])
def test_a_callback_can_be_retried_after_a_temporary_error(person: Person, path: str) -> None:
    """A code is good once: what it was exchanged for is not asked for again."""
    person.system.pipedrive.faults.add(path, "status", method=None, status=503)
    back = person.decide(person.begin())

    first = person.browser.get(back)
    kept = person.system.rows("SELECT sealed_grant, claimed_at FROM oauth_states")
    second = person.browser.get(back)

    assert (first.status_code, "Reload this page" in first.text, second.status_code) == (503, True, 200)
    assert (kept[0].sealed_grant is not None, kept[0].claimed_at) == ("me" in path, None)
    assert stored(person.system) == CONNECTED
    assert person.system.pipedrive.grants.counts["exchanges"] == 1
    assert person.system.rows("SELECT 1 FROM oauth_states WHERE sealed_grant IS NOT NULL") == []


@pytest.mark.parametrize("times", [1, 2, 9])
def test_a_deadlock_does_not_use_the_code_up(person: Person, monkeypatch: pytest.MonkeyPatch, times: int) -> None:
    module, left = person.system.module("sync.connectors.authorisation"), [None] * times
    real = module.request_catch_up

    def request_catch_up(session: Any, connector_key: int) -> None:
        if left:
            left.pop()
            raise OperationalError("UPDATE schedules", {}, Exception("deadlock detected"))
        real(session, connector_key)

    monkeypatch.setattr(module, "request_catch_up", request_catch_up)
    back = person.decide(person.begin())

    pages = [person.browser.get(back)]
    left.clear()
    pages.append(person.browser.get(back))

    assert [page.status_code for page in pages] == [503 if times > 2 else 200, 200]
    assert all(page.mimetype == "text/html" for page in pages)
    assert "acme is connected" in pages[-1].text
    assert person.system.pipedrive.grants.counts["exchanges"] == 1


def test_a_process_killed_while_finishing_blocks_others_only_briefly(person: Person) -> None:
    back = person.decide(person.begin())
    system = person.system
    system.change_rows("UPDATE oauth_states SET claimed_at = now()")
    assert person.browser.get(back).status_code == 503
    system.change_rows("UPDATE oauth_states SET claimed_at = now() - make_interval(secs => :s)", s=CLAIM_S + 1)

    assert person.browser.get(back).status_code == 200


def test_what_was_refused_leaves_no_access_behind(person: Person) -> None:
    person.system.pipedrive.grants.switches.scopes = "base"
    assert person.authorise().status_code == 400

    assert person.system.rows("SELECT 1 FROM oauth_states") == []


def test_a_look_at_the_address_uses_nothing_up(person: Person) -> None:
    back = person.decide(person.begin())

    assert person.browser.head(back).status_code == 200
    assert person.browser.get(back).status_code == 200


def test_a_state_is_good_for_ten_minutes(person: Person) -> None:
    back = person.decide(person.begin())
    late = "UPDATE oauth_states SET created_at = now() - make_interval(secs => :age)"
    person.system.change_rows(late, age=LIFETIME_S + 1)

    assert person.browser.get(back).status_code == 400
    assert stored(person.system) == ["hull_secret"]


@pytest.mark.parametrize("state", ["", "&state=made-up", "&state=made&state=up", "&state=%00"])
def test_a_state_that_is_not_ours_asks_pipedrive_nothing(person: Person, state: str) -> None:
    page = person.browser.get(f"/auth/callback?code=x{state}")

    assert (page.status_code, "start over" in page.text) == (400, True)
    assert person.system.pipedrive.grants.counts == {"exchanges": 0, "refreshes": 0, "refused": 0}


def test_only_a_digest_of_the_state_is_kept(person: Person) -> None:
    state = person.decide(person.begin()).rpartition("state=")[2]

    (row,) = person.system.rows("SELECT digest FROM oauth_states")
    assert len(state) > 40
    assert state not in row.digest


def refused(page: TestResponse, system: SyncSystem) -> str:
    """Check that nothing was stored, and return the text of the page."""
    now = connector(system)
    assert page.status_code == 400
    assert stored(system) == ["hull_secret"]
    assert (now.state, now.pause_reason, now.authorised_by) == ("paused", "not_connected", None)
    return page.text


def test_a_person_may_decline(person: Person) -> None:
    assert "allow access" in refused(person.authorise("deny"), person.system)


@pytest.mark.guide(
    "Permissions",
    "A user who authorizes without being an administrator is refused with a message, and nothing is changed.",
)
def test_who_is_no_administrator_is_refused(person: Person) -> None:
    system = person.system
    system.pipedrive.grants.switches.user_id = next(user.id for user in system.company.users if not user.admin)

    assert "as an administrator" in refused(person.authorise(), system)


@pytest.mark.parametrize(
    ("scopes", "named"),
    [
        ("base,contacts:read,admin", "contacts:full"),
        ("base,contacts:full", "admin"),
        ("base", "contacts:full, admin"),
    ],
)
def test_an_app_with_too_few_scopes_is_refused(person: Person, scopes: str, named: str) -> None:
    person.system.pipedrive.grants.switches.scopes = scopes

    assert f"scope_missing: {named}" in refused(person.authorise(), person.system)


def test_base_need_not_be_listed(person: Person) -> None:
    person.system.pipedrive.grants.switches.scopes = "contacts:full,admin"

    assert person.authorise().status_code == 200


@pytest.mark.parametrize(
    "api_domain",
    [
        "https://evil.example",
        "https://acme.pipedrive.com.evil.example",
        "https://169.254.169.254",
        "http://acme.pipedrive.com",
        "https://acme.pipedrive.com@evil.example",
    ],
)
def test_a_host_that_is_no_company_of_pipedrive_is_refused_and_never_called(person: Person, api_domain: str) -> None:
    person.system.pipedrive.grants.switches.api_domain = api_domain

    assert "host_refused" in refused(person.authorise(), person.system)
    assert person.system.pipedrive.ledger.requests["user"] == 0


@pytest.mark.defect(18, "The company's own address was thrown away, and another host called instead.")
def test_the_host_of_the_grant_is_the_one_that_is_called(person: Person) -> None:
    system = person.system
    system.pipedrive.grants.switches.api_domain = "https://Renamed.pipedrive.com/"
    session = session_for(
        {"http://pipedrive.test": system.pipedrive, "https://renamed.pipedrive.com": system.pipedrive}
    )
    connections.use_http(lambda: session)
    with installed_app(system, pipedrive_api_url=None):
        assert person.authorise().status_code == 200

    assert connector(system).pipedrive_company == "https://renamed.pipedrive.com"


@pytest.mark.guide(
    "I didn't get any updates from recently updated Persons or Organizations into Hull",
    "Open Credentials and authorize again, for the same Pipedrive account: another company is refused.",
)
@pytest.mark.parametrize("by", ["number", "address"])
def test_another_company_is_refused(person: Person, by: str) -> None:
    system = person.system
    if by == "number":
        system.change_rows("UPDATE connectors SET company_id = 1, pipedrive_company = 'https://other.pipedrive.com'")
    else:
        system.change_rows("UPDATE connectors SET pipedrive_company = 'https://other.pipedrive.com'")

    page = refused(person.authorise(), system)

    assert "https://other.pipedrive.com" in page
    assert f"https://{system.company.domain}.pipedrive.com" in page
    assert connector(system).pipedrive_company == "https://other.pipedrive.com"


def test_the_same_company_under_a_new_address_is_accepted(person: Person) -> None:
    system = person.system
    system.change_rows(
        "UPDATE connectors SET company_id = :id, pipedrive_company = 'https://old.pipedrive.com'", id=system.company.id
    )

    assert person.authorise().status_code == 200
    assert connector(system).pipedrive_company == f"https://{system.company.domain}.pipedrive.com"


def test_a_code_rejected_by_pipedrive_is_reported(person: Person) -> None:
    back = person.decide(person.begin())
    person.system.pipedrive.grants.revoke_all()

    assert "callback URL" in refused(person.browser.get(back), person.system)


def test_a_pipedrive_that_is_away_is_no_refusal(person: Person) -> None:
    person.system.pipedrive.faults.add("/oauth/token", "status", method="POST", status=503)
    page = person.authorise()

    assert (page.status_code, "start over" in page.text) == (503, True)
    assert stored(person.system) == ["hull_secret"]


@pytest.mark.parametrize("change", ["pipedrive_client_secret", "pipedrive_client_id"])
def test_an_installation_without_an_app_is_reported(person: Person, change: str) -> None:
    with installed_app(person.system, **{change: None}):
        page = person.begin()

    assert (page.status_code, "PIPEDRIVE_CLIENT_ID" in page.text) == (400, True)


def test_a_pause_by_hand_stays(person: Person) -> None:
    system = person.system
    system.change_rows("UPDATE connectors SET pause_reason = 'connector_paused'")

    assert "pipeline connectors resume" in person.authorise().text
    assert (connector(system).state, connector(system).pause_reason) == ("paused", "connector_paused")


@pytest.mark.guide(
    "I didn't get any updates from recently updated Persons or Organizations into Hull",
    "Open Credentials and authorize again, for the same Pipedrive account: another company is refused.",
)
@pytest.mark.parametrize("reason", ["unauthorized", "uninstalled", "host_refused", "app_refused", "forbidden"])
def test_a_pause_that_lost_access_caused_ends(person: Person, reason: str) -> None:
    system = person.system
    system.change_rows("UPDATE connectors SET pause_reason = :reason", reason=reason)
    person.authorise()

    assert (connector(system).state, connector(system).pause_reason) == ("active", None)


@pytest.mark.parametrize("answer", [401, 403])
def test_webhooks_that_were_refused_are_asked_for_again_at_once(person: Person, answer: int) -> None:
    system = person.system
    person.authorise()
    control = system.module("tasks.control")
    system.pipedrive.faults.add("/api/v1/webhooks", "status", status=answer, count=2)  # a 401 is tried twice
    with pytest.raises(system.module("sync.stage").StageFailed):
        control.ensure_webhooks()
    system.pipedrive.faults.rules.clear()

    person.authorise()
    control.ensure_webhooks()

    assert system.rows("SELECT 1 FROM failures WHERE state = 'open'") == []
    assert [row.state for row in system.rows("SELECT state FROM webhook_subscriptions")] == ["active", "active"]


def test_what_is_secret_shows_nowhere(person: Person, caplog: pytest.LogCaptureFixture) -> None:
    system = person.system
    with captured_log("debug") as lines:
        back = person.decide(person.begin())
        pages = [person.browser.get(back), person.browser.get(back), person.authorise("deny")]
        system.pipedrive.grants.expire_access_tokens()
        with transaction() as session:
            wired = wiring.open_connector(session, system.connector_key)
        wired.pipedrive.me()
    held = next(iter(system.pipedrive.grants._installations.values()))
    secrets = {
        *held.access_tokens,
        held.refresh_token,
        system.pipedrive.grants.client.secret,
        *(part.partition("=")[2] for part in back.partition("?")[2].split("&")),
    }

    written = str(lines) + caplog.text + "".join(page.text + str(page.headers) for page in pages)
    assert len(secrets) >= 5
    assert [line["event"] for line in lines if line["event"].startswith("connector.auth")] == [
        "connector.authorised",
        "connector.authorisation.refused",
    ]
    assert [secret for secret in secrets if secret in written] == []
    assert not any(
        secret.encode() in bytes(row[0])
        for row in system.rows("SELECT ciphertext FROM credentials")
        for secret in secrets
    )


def auth_status(person: Person) -> tuple[int, str]:
    answer = person.browser.get("/auth/status", query_string=HULL_CREDENTIALS)
    return answer.status_code, answer.json["message"]


def test_hull_receives_whether_it_is_connected(person: Person) -> None:
    assert auth_status(person) == (400, "Please authenticate")
    person.authorise()
    assert auth_status(person) == (200, "Connected")
    assert person.browser.get("/auth/status").status_code == 401


def shown_status(person: Person) -> tuple[str, list[str]]:
    answer = person.browser.get("/status", query_string=HULL_CREDENTIALS).json
    return answer["status"], answer["messages"]


@pytest.mark.guide(
    "Add a new Pipedrive Connector",
    "Until the connector is authorized, its status requests that and its work waits.",
)
def test_the_status_asks_to_connect_until_it_is(person: Person) -> None:
    level, messages = shown_status(person)

    assert level == "setupRequired"
    assert len(messages) == 1
    assert "Open Credentials" in messages[0]
    person.authorise()
    assert shown_status(person)[0] in {"ok", "warning"}


@pytest.mark.guide(
    "Add a new Pipedrive Connector",
    "Until the connector is authorized, its status requests that and its work waits.",
)
def test_work_waits_until_the_connector_is_connected(person: Person) -> None:
    person.system.company.create_person(name="Ada")
    person.system.fetch(Entity.PERSON)
    before = person.system.users()

    person.authorise()
    person.system.work()

    assert (before, list(person.system.users())) == ({}, [1])


@pytest.mark.defect(20, "The status was written to Hull twice each time it was asked for.")
def test_the_status_is_written_to_hull_once(person: Person) -> None:
    person.authorise()
    person.system.run_jobs()
    written = person.system.hull.counts["status_reports"]

    level, messages = shown_status(person)
    for _ in range(2):
        person.system.run_jobs()

    assert person.system.hull.counts["status_reports"] == written + 1
    assert person.system.hull.connector["status"] == {"status": level, "messages": messages}


def uninstall(person: Person, *, secret: str | None = None, **changes: Any) -> TestResponse:
    client = person.system.pipedrive.grants.client
    given = f"{client.id}:{secret or client.secret}"
    body = {
        "client_id": client.id,
        "company_id": person.system.company.id,
        "user_id": person.system.company.users[0].id,
        "timestamp": 1_700_000_000,
    }
    return person.browser.delete(
        "/auth/callback",
        json=body | changes,
        headers={"Authorization": "Basic " + b64encode(given.encode()).decode()},
    )


def test_pipedrives_own_notice_pauses_the_connector(person: Person) -> None:
    system = person.system
    person.authorise()
    system.pipedrive.session = session_for({PUBLIC_URL: person.web.wsgi_app})

    with captured_log("error") as lines:
        answer = system.pipedrive.test_client().post("/__sandbox__/oauth", json={"now": "uninstall"})

    assert answer.status_code == 200
    assert (connector(system).state, connector(system).pause_reason) == ("paused", "uninstalled")
    assert [(line["event"], line["reason"]) for line in lines] == [("incoming.job.error", "uninstalled")]
    level, messages = shown_status(person)
    assert level == "error"
    assert "uninstalled" in messages[0]


def test_a_forged_notice_is_turned_away(person: Person) -> None:
    person.authorise()

    for answer in (uninstall(person, secret="wrong"), person.browser.delete("/auth/callback", json={})):
        assert (answer.status_code, answer.json) == (401, {"error": "unauthorized"})
    assert connector(person.system).state == "active"


@pytest.mark.parametrize(
    "changes",
    [{"company_id": 1}, {"company_id": None}, {"company_id": "x" * 5000}, {"company_id": [1]}, {"user_id": 1}],
)
def test_an_uninstall_by_another_user_changes_nothing(person: Person, changes: dict[str, Any]) -> None:
    person.authorise()
    answer = uninstall(person, **changes)

    assert (answer.status_code, answer.json) == (200, {"status": "ok"})
    assert connector(person.system).state == "active"


@pytest.mark.parametrize("changes", [{}, {"user_id": None}, {"user_id": "digits"}])
def test_ids_of_a_notice_may_be_texts_and_the_user_unknown(person: Person, changes: dict[str, Any]) -> None:
    person.authorise()
    if changes.get("user_id") == "digits":
        changes = {"user_id": str(person.system.company.users[0].id), "company_id": str(person.system.company.id)}
    uninstall(person, **changes)

    assert connector(person.system).pause_reason == "uninstalled"


def test_a_connector_with_an_api_token_does_not_mind_an_uninstall(person: Person) -> None:
    system = person.system
    replace_api_token(system, connector(system))
    uninstall(person)

    assert connector(system).state == "active"


def test_no_app_means_no_uninstall(person: Person) -> None:
    with installed_app(person.system, pipedrive_client_id=None, pipedrive_client_secret=None):
        answer = person.browser.delete("/auth/callback", json={}, headers={"Authorization": "Basic Tm9uZTpOb25l"})

    assert answer.status_code == 401


def test_a_connector_that_is_not_connected_makes_no_noise(bare: SyncSystem) -> None:
    bare.change_rows(
        "INSERT INTO schedules (connector_key, kind, interval_s, next_run_at) VALUES (:key, 'incremental', 300, now())",
        key=bare.connector_key,
    )
    control = bare.module("tasks.control")
    with captured_log("info") as lines:
        control.sweep()
        control.app.tasks["control.start_scheduled"]()
        control.resolve_hull_ids()

    assert lines == []
    assert bare.rows("SELECT 1 FROM runs UNION ALL SELECT 1 FROM failures") == []


def test_a_connector_that_is_not_connected_can_speak_to_hull_alone(bare: SyncSystem) -> None:
    with transaction() as session:
        wired = wiring.open_connector(session, bare.connector_key)

    assert wired.hull.app()["id"] == CONNECTOR_ID
    with pytest.raises(ConfigurationError) as caught:
        wired.pipedrive.me()
    assert caught.value.reason == "not_connected"
