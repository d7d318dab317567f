"""The OAuth server: the page, codes, tokens, scopes, and everything that takes them away again."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from werkzeug.test import TestResponse

from sandbox.company import Company
from sandbox.pipedrive.access import needed
from sandbox.pipedrive.app import PipedriveApp, create_app
from sandbox.pipedrive.oauth import Client
from tests.contract.pipedrive import spec
from tests.contract.pipedrive.conftest import Api, Clock
from tests.wsgi_adapter import session_for

CLIENT = Client(id="client-1", secret="shh:with a colon")
CALLBACK = "http://ours.test/auth/callback?from=pipedrive"
ME = "/api/v1/users/me"
HOOK = {"subscription_url": "http://ours.test/x", "event_action": "*", "event_object": "person", "name": "n"}


@dataclass
class OAuth:
    """The OAuth server as an app calls it."""

    app: PipedriveApp

    def ask(self, **changes: str) -> TestResponse:
        asked = {"client_id": CLIENT.id, "redirect_uri": CALLBACK, "state": "s t&te"} | changes
        return self.app.test_client().get("/oauth/authorize", query_string=asked)

    def code(self) -> str:
        return answered(self.ask(decision="allow"))["code"]

    def post(self, path: str = "/oauth/token", client: Client | None = CLIENT, **form: str) -> TestResponse:
        headers = {}
        if client:
            headers["Authorization"] = "Basic " + b64encode(f"{client.id}:{client.secret}".encode()).decode()
        return self.app.test_client().post(path, data=form, headers=headers)

    def exchange(self, code: str, **form: str) -> TestResponse:
        asked = {"grant_type": "authorization_code", "code": code, "redirect_uri": CALLBACK}
        return self.post("/oauth/token", CLIENT, **(asked | form))

    def refresh(self, token: str) -> TestResponse:
        return self.post(grant_type="refresh_token", refresh_token=token)

    def connect(self) -> dict[str, Any]:
        answer = self.exchange(self.code())
        assert answer.status_code == 200, answer.get_data(as_text=True)
        tokens: dict[str, Any] = answer.get_json()
        return tokens

    def api(self, tokens: dict[str, Any]) -> Api:
        return Api(self.app.test_client(), {"Authorization": f"Bearer {tokens['access_token']}"})

    def turn(self, **switches: Any) -> Any:
        answer = self.app.test_client().post("/__sandbox__/oauth", json=switches)
        assert answer.status_code == 200
        return answer.get_json()


def answered(answer: TestResponse) -> dict[str, str]:
    """What the browser carries back."""
    assert answer.status_code == 302
    parts = urlsplit(answer.headers["location"])
    assert (parts.netloc, parts.path) == ("ours.test", "/auth/callback")
    return {name: value for name, [value] in parse_qs(parts.query).items()}


def refusal(answer: TestResponse) -> str:
    body = answer.get_json()
    assert (answer.status_code, body["success"]) == (400, False)
    assert body["error_description"] == body["message"]
    return f"{body['error']}: {body['message']}"


@pytest.fixture
def gone() -> list[dict[str, Any]]:
    """Return the requests to the app's callback URL."""
    return []


@pytest.fixture
def ours(gone: list[dict[str, Any]]) -> Callable[..., Any]:
    def callback(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        gone.append({**environ, "body": environ["wsgi.input"].read()})
        start_response("503 Whatever", [])
        return [b""]

    return callback


@pytest.fixture
def oauth(company: Company, ours: Callable[..., Any]) -> OAuth:
    return OAuth(create_app(company, client=CLIENT, webhook_session=session_for({"http://ours.test": ours})))


def test_the_page_offers_to_allow_and_to_deny(oauth: OAuth) -> None:
    page = oauth.ask()

    links = [line.partition('"')[0].replace("&amp;", "&") for line in page.get_data(as_text=True).split('href="')[1:]]
    assert (page.status_code, page.mimetype) == (200, "text/html")
    outcomes = [answered(oauth.app.test_client().get(link)) for link in links]
    assert set(outcomes[0]) == {"from", "code", "state"}
    assert outcomes[1] == {"from": "pipedrive", "error": "user_denied", "state": "s t&te"}


def test_the_page_can_be_answered_by_a_switch(oauth: OAuth) -> None:
    oauth.turn(decision="deny")
    assert answered(oauth.ask())["error"] == "user_denied"

    oauth.turn(decision="allow")
    assert answered(oauth.ask())["code"]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"client_id": "someone"}, "invalid_client: Invalid client: client is invalid"),
        ({"redirect_uri": "nowhere"}, "invalid_request: Invalid request: redirect_uri is not a valid URI"),
        ({"redirect_uri": "http://other.test/"}, "invalid_request: Invalid request: redirect_uri is invalid"),
    ],
)
def test_no_user_is_redirected_to_another_address(oauth: OAuth, changes: dict[str, str], words: str) -> None:
    oauth.turn(callback_url=CALLBACK)

    assert refusal(oauth.ask(decision="allow", **changes)) == words


def test_a_code_becomes_tokens_that_open_the_api(oauth: OAuth) -> None:
    answer = oauth.exchange(oauth.code())

    tokens = answer.get_json()
    assert spec.problems(1, "post", "/oauth/token", answer.status_code, tokens) == []
    assert len(tokens["access_token"]) > 400
    assert (tokens["token_type"], tokens["expires_in"]) == ("Bearer", 3599)
    assert {"base", "contacts:full", "admin"} <= set(tokens["scope"].split(","))
    assert tokens["api_domain"] == "http://localhost"
    assert oauth.api(tokens).ok("GET", ME)["company_id"] == oauth.app.company.id
    assert len(oauth.api(tokens).ok("GET", "/api/v2/persons")) == 100


def test_with_its_real_name_it_returns_the_companys_own_host(oauth: OAuth) -> None:
    code = oauth.code()
    form = {"grant_type": "authorization_code", "code": code, "redirect_uri": CALLBACK}
    form |= {"client_id": CLIENT.id, "client_secret": CLIENT.secret}

    answer = oauth.app.test_client().post("/oauth/token/", data=form, base_url="https://oauth.pipedrive.com")

    assert answer.get_json()["api_domain"] == "https://harborlight-7.pipedrive.com"


def test_a_code_is_used_once_and_for_its_own_callback(oauth: OAuth) -> None:
    invalid = "invalid_grant: Invalid grant: authorization_code is invalid"
    code = oauth.code()

    assert oauth.exchange(code).status_code == 200
    assert refusal(oauth.exchange(code)) == invalid
    assert refusal(oauth.exchange(oauth.code(), redirect_uri="http://ours.test/other")) == invalid
    assert refusal(oauth.exchange("made-up")) == invalid


def test_a_code_lives_five_minutes(oauth: OAuth, clock: Clock) -> None:
    first, second = oauth.code(), oauth.code()

    clock.now += 299
    assert oauth.exchange(first).status_code == 200
    clock.now += 1
    assert refusal(oauth.exchange(second)) == "invalid_grant: Invalid grant: authorization_code has expired"


@pytest.mark.parametrize(
    ("form", "client", "words"),
    [
        ({"code": "x"}, CLIENT, "invalid_request: Invalid request: grant_type is missing"),
        ({"grant_type": "password"}, CLIENT, "unsupported_grant_type: Invalid request: grant_type is not supported"),
        ({"grant_type": "refresh_token"}, None, "invalid_client: Invalid client: cannot retrieve client credentials"),
        (
            {"grant_type": "refresh_token"},
            Client(id=CLIENT.id, secret="wrong"),
            "invalid_client: Invalid client: client is invalid",
        ),
        ({"grant_type": "refresh_token"}, CLIENT, "invalid_grant: Invalid grant: refresh_token is invalid"),
    ],
)
def test_a_wrong_call_for_tokens_is_refused_and_counted(
    oauth: OAuth, form: dict[str, str], client: Client | None, words: str
) -> None:
    assert refusal(oauth.post(client=client, **form)) == words
    stats = oauth.app.test_client().get("/__sandbox__/stats").get_json()["oauth"]
    assert stats == {"exchanges": 0, "refreshes": 0, "refused": 1}


def test_only_a_form_is_taken(oauth: OAuth) -> None:
    answer = oauth.app.test_client().post("/oauth/token", json={"grant_type": "refresh_token"})

    assert refusal(answer).endswith("content must be application/x-www-form-urlencoded")


def test_an_access_token_ends_and_is_renewed_by_the_same_refresh_token(oauth: OAuth, clock: Clock) -> None:
    oauth.turn(token_lifetime_s=60)
    tokens = oauth.connect()

    clock.now += 60
    assert oauth.api(tokens).error("GET", ME) == (401, "Invalid token: access_token is invalid")
    answer = oauth.refresh(tokens["refresh_token"])

    fresh = answer.get_json()
    assert spec.problems(1, "post", "/oauth/token/", answer.status_code, fresh) == []
    assert fresh["refresh_token"] == tokens["refresh_token"]
    assert fresh["access_token"] != tokens["access_token"]
    assert oauth.api(fresh).ok("GET", ME)
    assert oauth.app.grants.counts == {"exchanges": 1, "refreshes": 1, "refused": 0}


def test_a_refresh_keeps_older_access_tokens_by_default(oauth: OAuth) -> None:
    tokens = oauth.connect()
    oauth.refresh(tokens["refresh_token"])
    assert oauth.api(tokens).ok("GET", ME)

    oauth.turn(refresh_ends_older=True)
    oauth.refresh(tokens["refresh_token"])
    assert oauth.api(tokens).error("GET", ME)[0] == 401


def test_refresh_tokens_rotate_on_request(oauth: OAuth) -> None:
    oauth.turn(rotate_refresh_tokens=True)
    first = oauth.connect()["refresh_token"]

    second = oauth.refresh(first).get_json()["refresh_token"]

    assert refusal(oauth.refresh(first)) == "invalid_grant: Invalid grant: refresh_token was already exchanged"
    assert oauth.refresh(second).status_code == 200


def test_a_refresh_token_dies_of_sixty_idle_days(oauth: OAuth, clock: Clock) -> None:
    tokens = oauth.connect()

    for _ in range(3):
        clock.now += 59 * 86_400
        assert oauth.refresh(tokens["refresh_token"]).status_code == 200
    clock.now += 60 * 86_400
    assert refusal(oauth.refresh(tokens["refresh_token"])) == "invalid_grant: Invalid grant: refresh_token is invalid"


def test_the_token_belongs_to_the_user_who_authorized(oauth: OAuth) -> None:
    salesperson = oauth.app.company.users[2]
    oauth.turn(user_id=salesperson.id)

    me = oauth.api(oauth.connect()).ok("GET", ME)

    assert (me["id"], me["name"]) == (salesperson.id, salesperson.name)
    assert {access["admin"] for access in me["access"]} == {False}


def test_another_company_may_answer(oauth: OAuth) -> None:
    oauth.turn(company_id=99, company_domain="elsewhere", api_domain="https://evil.test")

    tokens = oauth.connect()

    me = oauth.api(tokens).ok("GET", ME)
    assert tokens["api_domain"] == "https://evil.test"
    assert (me["company_id"], me["company_domain"]) == (99, "elsewhere")


def test_what_was_not_granted_is_refused(oauth: OAuth) -> None:
    oauth.turn(scopes="base,contacts:read")
    api = oauth.api(oauth.connect())

    assert api.ok("GET", "/api/v2/persons/search", term="an")
    for method, path in (("POST", "/api/v2/persons"), ("GET", "/v1/webhooks"), ("GET", "/api/v2/nowhere")):
        assert api.error(method, path, {} if method == "POST" else None) == (403, "Scope and URL mismatch")


def test_the_scopes_are_those_the_vendor_names(oauth: OAuth) -> None:
    rules = [rule for rule in oauth.app.url_map.iter_rules() if "/v1/" in rule.rule or "/v2/" in rule.rule]
    for rule in rules:
        version = 1 if "/v1/" in rule.rule else 2
        declared = spec.scopes(version, rule.rule)
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}:
            call = rule.endpoint.partition("|")[0]
            assert needed(call, method, rule.rule) == declared[method], f"{method} {rule.rule}"
    assert len(rules) > 40


def test_revoking_an_access_token_ends_that_one_alone(oauth: OAuth) -> None:
    tokens = oauth.connect()
    other = oauth.refresh(tokens["refresh_token"]).get_json()

    assert oauth.post("/oauth/revoke", token=tokens["access_token"]).status_code == 200
    assert oauth.post("/oauth/revoke", token="unknown").status_code == 200

    assert oauth.api(tokens).error("GET", ME)[0] == 401
    assert oauth.api(other).ok("GET", ME)


def test_revoking_the_refresh_token_removes_the_app(oauth: OAuth) -> None:
    tokens = oauth.connect()
    oauth.api(tokens).ok("POST", "/v1/webhooks", HOOK)

    oauth.post("/oauth/revoke", token=tokens["refresh_token"])

    assert oauth.api(tokens).error("GET", ME)[0] == 401
    assert refusal(oauth.refresh(tokens["refresh_token"])).startswith("invalid_grant")
    assert oauth.app.subscriptions.by_id == {}


def test_only_the_client_may_revoke(oauth: OAuth) -> None:
    tokens = oauth.connect()

    assert refusal(oauth.post("/oauth/revoke", client=None, token=tokens["refresh_token"])).startswith("invalid_client")
    assert oauth.api(tokens).ok("GET", ME)


def test_access_tokens_can_end_at_once(oauth: OAuth) -> None:
    tokens = oauth.connect()

    oauth.turn(now="expire")

    assert oauth.api(tokens).error("GET", ME)[0] == 401
    assert oauth.refresh(tokens["refresh_token"]).status_code == 200


def test_grants_can_be_taken_back_without_a_word(oauth: OAuth, gone: list[Any]) -> None:
    tokens = oauth.connect()
    oauth.api(tokens).ok("POST", "/v1/webhooks", HOOK)

    oauth.turn(now="revoke")

    assert oauth.api(tokens).error("GET", ME)[0] == 401
    assert refusal(oauth.refresh(tokens["refresh_token"])).startswith("invalid_grant")
    assert (len(oauth.app.subscriptions.by_id), gone) == (1, [])


def test_an_uninstall_is_sent_to_the_callback(oauth: OAuth, gone: list[dict[str, Any]]) -> None:
    tokens = oauth.connect()
    oauth.api(tokens).ok("POST", "/v1/webhooks", HOOK)

    statuses = oauth.turn(now="uninstall")["data"]["callback_statuses"]

    [notice] = gone
    company = oauth.app.company
    assert statuses == [503]
    assert (notice["REQUEST_METHOD"], notice["PATH_INFO"]) == ("DELETE", "/auth/callback")
    assert notice["HTTP_AUTHORIZATION"] == "Basic " + b64encode(f"{CLIENT.id}:{CLIENT.secret}".encode()).decode()
    expected = (
        f'{{"client_id": "client-1", "company_id": {company.id}, "user_id": {company.users[0].id},'
        ' "timestamp": "2026-03-01T12:00:00.000Z"}'
    )
    assert notice["body"].decode() == expected
    assert oauth.app.subscriptions.by_id == {}
    assert oauth.api(tokens).error("GET", ME)[0] == 401


def test_a_token_survives_that_the_same_user_authorises_again(oauth: OAuth) -> None:
    first, second = oauth.connect(), oauth.connect()

    assert oauth.api(first).ok("GET", ME) == oauth.api(second).ok("GET", ME)
    assert refusal(oauth.refresh(first["refresh_token"])).startswith("invalid_grant")
    assert len(oauth.app.test_client().get("/__sandbox__/oauth").get_json()["installations"]) == 1


def test_an_app_sees_and_deletes_its_own_webhooks_only(oauth: OAuth) -> None:
    by_hand = Api(oauth.app.test_client())
    app = oauth.api(oauth.connect())

    general = by_hand.ok("POST", "/v1/webhooks", HOOK)
    own = app.ok("POST", "/v1/webhooks", HOOK)

    assert (general["type"], own["type"]) == ("general", "application")
    assert app.ok("GET", "/v1/webhooks") == [own]
    assert by_hand.ok("GET", "/v1/webhooks") == [general, own]
    forbidden = app.call("DELETE", f"/v1/webhooks/{general['id']}")
    assert (forbidden.status_code, forbidden.get_json()) == (403, {"success": False, "message": "Forbidden"})
    assert app.call("DELETE", f"/v1/webhooks/{own['id']}").status_code == 200


def test_the_switches_show_no_token(oauth: OAuth) -> None:
    tokens = oauth.connect()

    shown = oauth.app.test_client().get("/__sandbox__/oauth").get_data(as_text=True)

    assert tokens["access_token"] not in shown
    assert tokens["refresh_token"] not in shown
    assert "rotate_refresh_tokens" in shown


@pytest.mark.parametrize("switches", [{"colour": 1}, {"now": "explode"}])
def test_a_switch_that_is_not_there_is_refused(oauth: OAuth, switches: dict[str, Any]) -> None:
    assert oauth.app.test_client().post("/__sandbox__/oauth", json=switches).status_code == 400


def test_tokens_stay_out_of_the_ledger_and_may_be_lost_on_the_way(oauth: OAuth) -> None:
    tokens = oauth.connect()
    oauth.app.faults.add("/oauth/token", "status", status=502, late=True)

    assert oauth.refresh(tokens["refresh_token"]).status_code == 502
    assert oauth.app.grants.counts["refreshes"] == 1
    assert oauth.app.ledger.mutations == []
