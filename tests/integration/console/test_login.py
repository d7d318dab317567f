"""Logins, sessions, roles and forged forms."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from urllib.parse import quote

import pytest
from argon2 import PasswordHasher
from sqlalchemy import select, text
from structlog.testing import capture_logs
from werkzeug.datastructures import MultiDict

from db.audit import latest_entries
from db.operator import OperatorSession
from db.session import engine, transaction, use_database
from pipeline import settings as settings_room
from pipeline.accounts import logins, operators, passwords
from pipeline.domain.kinds import Role
from pipeline.web import auth
from tests import accounts
from tests.integration.console.conftest import PASSWORD, ConsoleClient
from tests.system import SyncSystem


def ana(role: Role = Role.ADMIN) -> None:
    accounts.add("Ana@acme.test", PASSWORD, role)


def log_in(console: ConsoleClient, password: str = PASSWORD, **form: str) -> int:
    return console.client.post("/login", data={"name": "ana@acme.test", "password": password} | form).status_code


def test_a_request_without_a_session_is_redirected_to_the_login_and_back(anonymous: ConsoleClient) -> None:
    ana()
    sent = anonymous.get("/operators?x=1")

    assert (sent.status_code, sent.headers["Location"]) == (303, "/login?next=/operators%3Fx%3D1")
    answer = anonymous.client.post(
        "/login", data={"name": "ANA@acme.test", "password": PASSWORD, "next": "/operators?x=1"}
    )
    assert (answer.status_code, answer.headers["Location"]) == (303, "/operators?x=1")
    assert anonymous.get("/operators?x=1").status_code == 200


def test_a_live_part_of_a_page_has_the_whole_page_go_to_the_login(anonymous: ConsoleClient) -> None:
    answer = anonymous.get("/", **{"HX-Request": "true"})

    assert (answer.status_code, answer.headers["HX-Redirect"]) == (401, "/login")


def test_a_preview_after_the_session_ended_leaves_the_page_with_the_edits_alone(admin: ConsoleClient) -> None:
    operators.log_out(admin.token)

    answer = admin.client.post(
        "/c/acme/settings/user-fields",
        data={"do": "preview"},
        headers={"HX-Request": "true", "Sec-Fetch-Site": "same-origin"},
    )

    assert (answer.status_code, "HX-Redirect" in answer.headers) == (401, False)


def test_a_form_of_an_ended_session_is_kept_until_the_login(system: SyncSystem, admin: ConsoleClient) -> None:
    """The edits, the reason and the page to return to are kept; nothing is saved before the person sends it again."""
    ana()
    operators.log_out(admin.token)
    page = "/c/acme/settings"

    asked = admin.client.post(
        "/c/acme/actions/pause",
        data={"csrf": "gone", "why": "<b>holiday</b>", "ids": ["1", "2"], "password": "canary"},
        headers={"Referer": f"http://localhost{page}", "Sec-Fetch-Site": "same-origin"},
    )
    (pending,) = re.findall('name="pending" value="([^"]*)"', asked.text)
    entered = admin.client.post(
        "/login",
        data={"name": "ana@acme.test", "password": PASSWORD, "next": page, "pending": html.unescape(pending)},
    )

    assert "Your session has ended" in asked.text
    assert f'name="next" value="{page}"' in asked.text
    assert "canary" not in asked.text + entered.text
    assert "<b>holiday" not in entered.text
    assert [row.state for row in system.rows("SELECT state FROM connectors")] == ["active"]
    fields = re.findall('<input type="hidden" name="([^"]*)" value="([^"]*)">', entered.text.partition("<main")[2])
    data = MultiDict((name, html.unescape(value)) for name, value in fields)
    sent = admin.client.post("/c/acme/actions/pause", data=data)
    assert [html.unescape(value) for name, value in fields if name in ("why", "ids")] == ["<b>holiday</b>", "1", "2"]
    assert sent.status_code == 303
    assert [row.state for row in system.rows("SELECT state FROM connectors")] == ["paused"]


def test_a_long_form_is_kept_until_the_login(admin: ConsoleClient) -> None:
    """A payload that is being corrected is longer than what a sender without a session may send."""
    ana()
    operators.log_out(admin.token)
    admin.client.set_cookie(auth.MARK, logins.new_mark())
    text = '"name": "Ada",\n' * 12_000

    asked = admin.client.post(
        "/c/acme/settings/json", data={"document": text}, headers={"Sec-Fetch-Site": "same-origin"}
    )
    (pending,) = re.findall('name="pending" value="([^"]*)"', asked.text)
    entered = admin.client.post(
        "/login", data={"name": "ana@acme.test", "password": PASSWORD, "next": "/", "pending": html.unescape(pending)}
    )

    ((_, kept),) = re.findall('<input type="hidden" name="(document)" value="([^"]*)">', entered.text)
    assert html.unescape(kept) == text


@pytest.mark.parametrize("mark", ["", "1", "1.x", "99999999999.0123", "\ud800"])
def test_a_long_form_of_an_unknown_browser_is_not_kept(admin: ConsoleClient, mark: str) -> None:
    operators.log_out(admin.token)
    admin.client.set_cookie(auth.MARK, mark.encode("utf-8", "replace").decode())

    asked = admin.client.post(
        "/c/acme/settings/json", data={"document": "x" * 70_000}, headers={"Sec-Fetch-Site": "same-origin"}
    )
    entered = admin.client.post("/login", data={"name": "ana@acme.test", "pending": "x" * 70_000})

    assert (asked.status_code, entered.status_code) == (413, 413)
    assert "too long to be kept" in asked.text


@pytest.mark.parametrize(
    "headers", [{"Origin": "https://evil.test"}, {"Sec-Fetch-Site": "cross-site"}], ids=["origin", "site"]
)
def test_a_form_of_another_site_is_not_kept(admin: ConsoleClient, headers: dict[str, str]) -> None:
    operators.log_out(admin.token)

    answer = admin.client.post("/c/acme/actions/pause", data={"why": "evil"}, headers=headers)

    assert answer.status_code == 403
    assert "evil" not in answer.text.partition("<main")[2]


@pytest.mark.parametrize("pending", ["", "[]", "{}", '{"path": "https://evil.test", "fields": []}', "[" * 5_000])
def test_a_login_leads_to_no_form_that_is_not_ours(anonymous: ConsoleClient, pending: str) -> None:
    ana()

    answer = anonymous.client.post("/login", data={"name": "ana@acme.test", "password": PASSWORD, "pending": pending})

    assert (answer.status_code, answer.headers["Location"]) == (303, "/")


@pytest.mark.parametrize("wanted", ["/c/acme/logs?reason=x&reason=y"])
def test_a_live_part_comes_back_to_its_page_after_the_login(anonymous: ConsoleClient, wanted: str) -> None:
    answer = anonymous.get("/", **{"HX-Request": "true", "HX-Current-URL": f"http://localhost{wanted}"})

    assert answer.headers["HX-Redirect"] == f"/login?next={quote(wanted)}"


@pytest.mark.parametrize("wanted", ["//evil.test", "https://evil.test", "/\\evil.test", "javascript:1", "/\nx"])
def test_the_login_leads_to_no_other_site(anonymous: ConsoleClient, wanted: str) -> None:
    ana()

    answer = anonymous.client.post("/login", data={"name": "ana@acme.test", "password": PASSWORD, "next": wanted})

    assert answer.headers["Location"] == "/"


def test_a_wrong_password_and_an_unknown_name_are_answered_alike(anonymous: ConsoleClient) -> None:
    ana()
    wrong = anonymous.client.post("/login", data={"name": "ana@acme.test", "password": "wrong password"})
    unknown = anonymous.client.post("/login", data={"name": "bo@acme.test", "password": "wrong password"})

    assert (wrong.status_code, unknown.status_code) == (401, 401)
    clock = re.compile('data-now="[^"]*"')
    assert clock.sub("", wrong.text).replace("ana@", "bo@") == clock.sub("", unknown.text)


def test_the_session_is_new_with_each_login_and_over_after_the_logout(anonymous: ConsoleClient) -> None:
    ana()
    log_in(anonymous)
    first = anonymous.client.get_cookie("session")
    log_in(anonymous)
    second = anonymous.client.get_cookie("session")

    assert first
    assert second
    assert first.value != second.value
    assert second.http_only
    assert second.same_site == "Lax"
    anonymous.token = second.value
    done = anonymous.post("/logout")
    assert (done.status_code, done.headers["Clear-Site-Data"]) == (303, '"cache", "storage"')
    anonymous.client.set_cookie("session", second.value)
    assert anonymous.get("/").status_code == 303


@pytest.mark.parametrize(
    ("column", "age"), [("seen_at", timedelta(hours=13)), ("created_at", timedelta(days=8))], ids=["idle", "old"]
)
def test_a_session_ends_by_itself(viewer: ConsoleClient, column: str, age: timedelta) -> None:
    with transaction() as session:
        for each in session.scalars(select(OperatorSession)):
            setattr(each, column, datetime.now(UTC) - age)

    assert viewer.get("/").status_code == 303


@pytest.fixture
def https(database: str) -> Iterator[str]:
    """PUBLIC_URL is https, and the browser speaks it."""
    assert database
    before = settings_room.settings()
    settings_room.use(before.replace(public_url="https://pipeline.test"))
    yield "https://pipeline.test"
    settings_room.use(before)


def test_over_https_every_cookie_is_for_this_host_only(https: str, anonymous: ConsoleClient) -> None:
    ana()
    form = {"name": "ana@acme.test", "password": PASSWORD}
    answers = [anonymous.client.post("/login", data=form, base_url=https)]
    cookie = anonymous.client.get_cookie("__Host-session", domain="pipeline.test")
    assert cookie
    csrf = operators.csrf_of(cookie.value)
    forms = [
        ("/theme", {"theme": "dark"}),
        ("/theme", {"theme": "system"}),
        ("/account/sessions/others/end", {}),
        ("/logout", {}),
    ]
    for path, values in forms:
        answers.append(anonymous.client.post(path, data={"csrf": csrf} | values, base_url=https))
        answers.append(anonymous.client.get("/account", base_url=https))

    cookies = [each for answer in answers for each in answer.headers.getlist("Set-Cookie")]
    names = {"session", "browser", "device", "theme", "notice"}
    assert {each.partition("=")[0] for each in cookies} == {f"__Host-{name}" for name in names}
    for each in cookies:
        parts = {part.strip() for part in each.split(";")[1:]}
        assert {"Secure", "HttpOnly", "Path=/"} <= parts, each
        assert not any(part.startswith("Domain") for part in parts), each


def test_the_database_stores_no_password_and_no_token(anonymous: ConsoleClient) -> None:
    ana()
    log_in(anonymous)
    cookie = anonymous.client.get_cookie("session")
    assert cookie

    with transaction() as session:
        hashed = session.execute(text("SELECT password_hash FROM operators")).scalar_one()
        digest = bytes(session.execute(text("SELECT digest FROM operator_sessions")).scalar_one())
    assert hashed.startswith("$argon2id$")
    assert cookie.value.encode() not in digest


def test_a_password_is_hashed_as_rfc_9106_recommends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passwords, "PasswordHasher", PasswordHasher)
    monkeypatch.setattr(passwords, "_hasher", passwords._hasher.__wrapped__)

    hashed = passwords.hash_new(PASSWORD)

    assert hashed.startswith("$argon2id$v=19$m=65536,t=3,p=4$")
    assert passwords.verify(hashed, PASSWORD)
    assert not passwords.verify(hashed, PASSWORD + "x")


@pytest.mark.parametrize(
    "headers",
    [{"Origin": "https://evil.test"}, {"Sec-Fetch-Site": "cross-site"}, {"Sec-Fetch-Site": "same-site"}],
)
def test_a_form_of_another_site_does_nothing(admin: ConsoleClient, headers: dict[str, str]) -> None:
    form = {"csrf": operators.csrf_of(admin.token), "name": "eve", "password": PASSWORD, "role": "admin"}

    with capture_logs() as lines:
        answer = admin.client.post("/operators", data=form, headers=headers)

    assert answer.status_code == 403
    assert "another site" in answer.text
    assert [line["reason"] for line in lines if line["event"] == "console.refused"] == ["foreign_origin"]


@pytest.mark.parametrize("csrf", ["", "forged", "é" * 64])
def test_a_forged_form_does_nothing(admin: ConsoleClient, csrf: str) -> None:
    answer = admin.client.post("/operators", data={"csrf": csrf, "name": "eve", "password": PASSWORD, "role": "admin"})

    assert answer.status_code == 403
    with transaction() as session:
        assert session.execute(text("SELECT count(*) FROM operators")).scalar_one() == 1


def test_a_form_of_another_session_does_nothing(admin: ConsoleClient, viewer: ConsoleClient) -> None:
    answer = admin.client.post("/logout", data={"csrf": operators.csrf_of(viewer.token)})

    assert answer.status_code == 403


def test_actions_of_admins_are_refused_to_viewers_and_logged(viewer: ConsoleClient) -> None:
    with capture_logs() as lines:
        answers = [viewer.get("/operators"), viewer.post("/operators", name="eve"), viewer.get("/audit")]

    assert [each.status_code for each in answers] == [403, 403, 403]
    assert "needs the role admin; you are viewer" in answers[0].text
    assert [line["reason"] for line in lines if line["event"] == "console.refused"] == ["role"] * 3


def test_refusals_are_logged_without_the_requested_path(viewer: ConsoleClient) -> None:
    with capture_logs() as lines:
        answers = [viewer.get("/c/ana@acme.test/"), viewer.post("/c/ana@acme.test/actions/pause")]

    assert [each.status_code for each in answers] == [404, 403]
    assert "ana@" not in str(lines)
    assert [line["operation"] for line in lines if line["event"] == "console.refused"] == [
        "console.overview_show_connector",
        "console.actions_pause",
    ]


def test_a_page_offers_only_permitted_actions(viewer: ConsoleClient, admin: ConsoleClient) -> None:
    assert "/connectors/new" not in viewer.text("/")
    assert "/connectors/new" in admin.text("/")


def test_only_the_link_adds_the_first_operator(anonymous: ConsoleClient) -> None:
    code = operators.first_code()
    assert "pipeline operators first" in anonymous.text("/login")
    assert anonymous.get("/setup?code=wrong").status_code == 403

    form = {"code": code, "name": "ana", "password": PASSWORD}
    too_short = anonymous.client.post("/setup", data=form | {"password": "short"})
    answer = anonymous.client.post("/setup", data=form)

    assert (too_short.status_code, answer.status_code) == (400, 303)
    assert "Add Connector" in anonymous.text("/")
    assert anonymous.client.post("/setup", data=form | {"name": "eve"}).status_code == 403


def test_an_admin_adds_changes_and_disables_people(admin: ConsoleClient, anonymous: ConsoleClient) -> None:
    admin.post("/operators", name="Ana@acme.test", password=PASSWORD, role="operator")
    log_in(anonymous)
    with transaction() as session:
        (ana_id,) = session.execute(text("SELECT id FROM operators WHERE name = 'ana@acme.test'")).one()
    assert anonymous.get("/").status_code == 200

    admin.post(f"/operators/{ana_id}", role="operator", state="disabled")

    assert anonymous.get("/").status_code == 303
    assert log_in(anonymous) == 401
    with transaction() as session:
        entries = [(each.action, each.subject) for each in latest_entries(session)]
    assert entries[:3] == [
        ("operator.login_failed", "ana@acme.test"),
        ("operator.change", "ana@acme.test"),
        ("operator.login", "ana@acme.test"),
    ]
    assert "ana@acme.test" in admin.text("/audit")


def test_the_last_admin_stays_one(admin: ConsoleClient) -> None:
    with transaction() as session:
        (me,) = session.execute(text("SELECT id FROM operators")).one()

    answer = admin.post(f"/operators/{me}", role="viewer")

    assert answer.status_code == 400
    assert "last admin" in answer.text
    assert admin.get("/operators").status_code == 200


def test_a_name_is_given_once(admin: ConsoleClient) -> None:
    form = {"name": "bo", "password": PASSWORD, "role": "viewer"}
    assert admin.post("/operators", **form).status_code == 303

    assert "already" in admin.post("/operators", **form | {"name": "BO"}).text


def test_names_are_shown_escaped_and_apart(admin: ConsoleClient) -> None:
    admin.post("/operators", name="<script>{{7*7}}</script>", password=PASSWORD, role="viewer")

    page = admin.text("/operators")

    assert "<script>{{" not in page
    assert "&lt;script&gt;{{7*7}}" in page


def test_no_page_has_a_script_or_a_style_of_its_own(admin: ConsoleClient) -> None:
    for path in ("/", "/operators", "/account", "/audit"):
        answer = admin.get(path)
        assert "style=" not in answer.text
        assert (
            len(re.findall(r'<script src="/static/[a-z.]+" defer></script>', answer.text)) == 2
        )  # htmx's file and ours
        assert answer.text.count("<script") == 2
        assert "unsafe" not in answer.headers["Content-Security-Policy"]


def test_colours_are_chosen_and_kept(viewer: ConsoleClient) -> None:
    answer = viewer.post("/theme", theme="dark", next="/account")

    assert answer.headers["Location"] == "/account"
    assert 'data-theme="dark"' in viewer.text("/")
    viewer.post("/theme", theme="system", next="/")
    assert "data-theme" not in viewer.text("/")


def test_without_the_database_a_page_answers_503_with_retry_after(anonymous: ConsoleClient, database: str) -> None:
    engine().dispose()
    use_database("postgresql+psycopg2://postgres@127.0.0.1:1/nowhere")
    try:
        answer = anonymous.get("/login")
    finally:
        use_database(database)

    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "5")


def test_a_page_contains_the_servers_clock(anonymous: ConsoleClient) -> None:
    """Pages update ages with it, so a wrong clock of the computer does not change them."""
    (now,) = re.findall('<body data-now="([^"]+)">', anonymous.get("/login").text)

    assert abs((datetime.now(UTC) - datetime.fromisoformat(now)).total_seconds()) < 60
