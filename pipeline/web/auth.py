"""Authentication and authorisation of operators: the session, the role, and protection against forged forms.

The console and the API check every request with it; `pipeline.web.console.pages` registers no view without these checks.
"""

from __future__ import annotations

import hmac
from collections.abc import Iterable
from http import HTTPStatus
from typing import Final
from urllib.parse import urlsplit

from flask import g, request
from werkzeug.wrappers import Response

from db import connector as connectors
from db import operator as rows
from db.connector import Connector
from db.operator import Present
from db.session import transaction
from pipeline.accounts import logins, operators
from pipeline.accounts.logins import LoginOrigin
from pipeline.accounts.operators import Renewal
from pipeline.domain.kinds import Role
from pipeline.settings import settings
from pipeline.telemetry import logger
from pipeline.web import request_origin
from pipeline.web.request_body import UNAUTHENTICATED_BYTES
from pipeline.web.request_origin import cookie_named, set_cookie

SESSION: Final = "session"
MARK: Final = "browser"
"""The cookie of a browser with a recent login: its forms are kept until the next login."""
DEVICE: Final = "device"
"""The cookie of a browser where an operator has logged in before."""
CSRF_FIELD: Final = "csrf"
CSRF_HEADER: Final = "X-CSRF-Token"
LIVE_HEADER: Final = "X-Live-Update"
"""Sent by pages that update themselves (static/pipeline.js)."""
FRESH_PROOF_S: Final = 600
"""How long the password, or a login by single sign-on, counts as proof of identity."""
MAX_FORM_BYTES: Final = 2 * 1024 * 1024
"""Limit of a body from a logged-in operator; the app accepts less from others."""
MAX_PENDING_BYTES: Final = 3 * MAX_FORM_BYTES
"""Limit of a login that carries such a form as JSON, from a browser with a recent login."""


class Refused(Exception):
    """The operator may not do this, or it does not exist; the page shows the sentence and the next step."""

    def __init__(self, status: HTTPStatus, sentence: str, next_step: str = "") -> None:
        super().__init__(sentence)
        self.status, self.sentence, self.next_step = status, sentence, next_step


def require_proof() -> None:
    """Require the password again before a change of operators: a stolen session or key must not be enough.

    Raises: Refused for a key, and for a session with a password entered more than ten minutes ago.
    """
    if who().key:
        sentence = "An API key cannot change who can log in."
        raise refusal("proof", sentence, "Use the console, or `pipeline operators`.")
    with transaction() as session:
        age_s = rows.proof_age_s(session, operators.digest_of(token()))
    if age_s is None or age_s > FRESH_PROOF_S:
        sentence = "This changes who can log in, and you last entered your password more than ten minutes ago."
        raise refusal("proof", sentence, "Confirm your password under your account, then try again.")


def require_unlimited() -> None:
    """Raises: Refused for an operator who is limited to some connectors."""
    if who().connector_keys is not None:
        raise refusal("limited", "This page shows every connector, and you may see only some of them.", "Ask an admin.")


def who() -> Present:
    """Return the operator of this request; only in protected views."""
    present: Present = g.operator
    return present


def require_role(needs: Role) -> None:
    """Raises: Refused."""
    role = Role(who().role)
    if not role.may(needs):
        raise refusal("role", f"This needs the role {needs}; you are {role}.", "Ask an admin.")


def token() -> str:
    """Return the session's token from the browser, or the new one if this request has renewed it."""
    renewed: str | None = g.get("renewed_token")
    return request.cookies.get(cookie_named(SESSION), "") if renewed is None else renewed


def renew(renewal: Renewal) -> None:
    """Use the renewed session for the forms of this answer; `keep_token` sends its token to the browser."""
    g.renewed_token = renewal.new


def keep_token(answer: Response, token: str) -> Response:
    """Set the session's cookie, until the browser is closed."""
    set_cookie(answer, SESSION, token)
    return answer


def refusal(reason: str, sentence: str, next_step: str = "", status: HTTPStatus = HTTPStatus.FORBIDDEN) -> Refused:
    """Log a refused action, and return the error to raise."""
    operator = g.get("operator")
    operator_id = operator.id if operator else None
    logger().warning("console.refused", reason=reason, operation=request.endpoint, operator_id=operator_id)
    return Refused(status, sentence, next_step)


def find_connector(name: str) -> Connector:
    """Return the connector of this name. Raises: Refused, 404."""
    with transaction() as session:
        found = connectors.find_connector(session, name)
    if found is None or not who().may_see(found.key):
        raise missing(f"There is no connector {name!r}.", "Choose one from the list of connectors.")
    return found


def missing(sentence: str, next_step: str = "") -> Refused:
    """Return the error for something that does not exist or belongs to another connector: both get the same answer."""
    return refusal("missing", sentence, next_step, HTTPStatus.NOT_FOUND)


def require_same_origin() -> None:
    """Refuse a form of another site. Browsers send the origin; other programs have no cookies that could be abused."""
    site, origin = request.headers.get("Sec-Fetch-Site"), request.headers.get("Origin")
    is_foreign = site not in (None, "same-origin", "none") or (origin is not None and not _is_ours(origin))
    if is_foreign:
        raise _foreign()


def require_proof_of_origin() -> None:
    """Refuse a form without a token if the browser does not send its origin."""
    require_same_origin()
    if request.headers.get("Sec-Fetch-Site") != "same-origin" and request.headers.get("Origin") is None:
        raise _foreign()


def own_hosts() -> set[str]:
    """Return each `host:port` that the browser may use for our pages."""
    return {request.host, urlsplit(settings().public_url).netloc}


def require_own_form() -> None:
    """Refuse a form without the token that only pages of this session contain."""
    require_same_origin()
    given = request.headers.get(CSRF_HEADER) or request.form.get(CSRF_FIELD, "")
    if not hmac.compare_digest(given.encode("utf-8", "surrogatepass"), operators.csrf_of(token()).encode()):
        raise refusal("forged_form", "This form is out of date, so nothing was done.", "Reload the page and try again.")


def require_storable(given: Iterable[object]) -> None:
    """Refuse texts with a NUL character, which PostgreSQL cannot store. Raises: Refused, 400."""
    if any("\0" in each for each in given if isinstance(each, str)):
        raise refusal(
            "nul", "The text contains a NUL character, which cannot be stored.", "Remove it.", HTTPStatus.BAD_REQUEST
        )


def safe_path(wanted: str | None) -> str:
    """Return the path to open after the login: one of ours, never another site."""
    path = wanted or "/"
    is_ours = path.startswith("/") and not path.startswith(("//", "/\\")) and path.isprintable()
    return path if is_ours else "/"


def _is_ours(origin: str) -> bool:
    return urlsplit(origin).netloc in own_hosts()


def _foreign() -> Refused:
    return refusal("foreign_origin", "This form was sent by another site, so nothing was done.", "Open the page here.")


def was_logged_in() -> bool:
    """Return whether an operator logged in with this browser recently: its forms are kept until the next login."""
    return logins.is_mark(request.cookies.get(cookie_named(MARK), ""))


def body_limit() -> int:
    """Return how many bytes the sender of a form may send: more with a session or after a recent login."""
    if was_logged_in():
        return MAX_PENDING_BYTES
    return MAX_FORM_BYTES if present() is not None else UNAUTHENTICATED_BYTES


def present() -> Present | None:
    """Return the logged-in operator; None also if single sign-on names another operator.

    Automatic updates of an open page do not prolong the session.
    """
    given = token()
    found = operators.who_is(given, renews=LIVE_HEADER not in request.headers) if given else None
    named = request_origin.named_operator()
    return None if found is not None and named is not None and named != found.name else found


def caller() -> LoginOrigin:
    """Return where this request comes from, for a login."""
    agent = request.headers.get("User-Agent", "")
    return LoginOrigin(
        address=request.remote_addr or "", agent=agent, device=request.cookies.get(cookie_named(DEVICE), "")
    )
