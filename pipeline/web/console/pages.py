"""The registry of the console's pages and forms, each with its role, and their calls of operations.

`Pages` registers every view, so that none can be reached without its checks. `perform` runs an operation for a view; the
operation's request model validates the form.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import wraps
from http import HTTPStatus
from itertools import chain
from typing import Any, Final, TypeVar
from urllib.parse import quote, urlsplit

from flask import Blueprint, g, redirect, request
from pydantic import BaseModel, ValidationError
from werkzeug.exceptions import RequestEntityTooLarge
from werkzeug.routing import IntegerConverter, Map
from werkzeug.wrappers import Response

from pipeline.domain.kinds import Role
from pipeline.domain.reasons import REASONS
from pipeline.operations.call import Call
from pipeline.operations.errors import OperationError, invalid
from pipeline.operations.models import LARGEST_ID
from pipeline.operations.registry import Operation
from pipeline.web import auth
from pipeline.web.auth import Refused
from pipeline.web.console.layout import page

A = TypeVar("A")
View = Callable[..., Any]
NOT_KEPT: Final = frozenset({auth.CSRF_FIELD, "password", "old", "new", "secret", "token", "code", "ticket"})
"""Fields of a form that are not kept until the next login."""


class RowNumber(IntegerConverter):
    """An id in an address, up to the largest id that the database can store."""

    def __init__(self, url_map: Map, **limits: Any) -> None:
        super().__init__(url_map, **({"max": LARGEST_ID} | limits))


class Pages:
    """Registers the protected views of one blueprint."""

    def __init__(self, routes: Blueprint) -> None:
        self._routes = routes

    def page(self, rule: str, view: View, *, needs: Role = Role.VIEWER, shows_all: bool = False) -> None:
        """Register a page. If the rule begins with `/c/<name>`, the view gets the Connector as its first argument.

        shows_all  the page shows data of every connector, so an operator who is limited to some cannot open it
        """
        self._add(rule, _for_unlimited(view) if shows_all else view, needs, ["GET"])

    def action(self, rule: str, view: View, *, needs: Role = Role.OPERATOR) -> None:
        """Register the action of a form."""
        self._add(rule, view, needs, ["POST"])

    def proxy(self, rule: str, view: View, *, needs_to_post: Callable[..., Role]) -> None:
        """Register pages of another program, for operators who may see every connector. Its forms do not contain our
        token, so a POST must prove its origin.

        needs_to_post  returns the role that a POST needs, from the arguments of the view
        """

        def checked_by_method(**given: Any) -> Any:
            if request.method == "POST":
                auth.require_role(needs_to_post(**given))
                auth.require_proof_of_origin()
            return view(**given)

        checked_by_method.__module__, checked_by_method.__name__ = view.__module__, view.__name__
        self._add(rule, _for_unlimited(checked_by_method), Role.VIEWER, ["GET", "POST"])

    def _add(self, rule: str, view: View, needs: Role, methods: list[str]) -> None:
        @wraps(view)
        def checked(**given: Any) -> Any:
            operator = auth.present()
            if operator is None:
                return _to_login(saves=methods == ["POST"])
            g.operator = operator
            auth.require_role(needs)
            if methods == ["POST"]:
                request.max_content_length = request.max_form_memory_size = auth.MAX_FORM_BYTES
                auth.require_own_form()
                auth.require_storable(chain.from_iterable(request.form.listvalues()))
            auth.require_storable(chain.from_iterable(request.args.listvalues()))
            if any("\0" in str(each) for each in given.values()):
                raise auth.missing("This address does not exist.", "Choose an entry from a list.")
            if "name" not in given:
                return view(**given)
            g.connector = auth.find_connector(
                given.pop("name")
            )  # a page that explains an error shows the connector's tabs
            return view(g.connector, **given)

        name = f"{view.__module__.rsplit('.', 1)[-1]}.{view.__name__}".replace(".", "_")
        self._routes.add_url_rule(rule, name, checked, methods=methods)


def _for_unlimited(view: View) -> View:
    @wraps(view)
    def checked(*given: Any, **named: Any) -> Any:
        auth.require_unlimited()
        return view(*given, **named)

    return checked


def perform(declared: Operation[Any, A], **fields: Any) -> A:
    """Run an operation for the operator of this page, about the page's connector. Raises OperationError."""
    connector = g.get("connector")
    if connector is not None and "connector" in declared.request.model_fields:
        fields["connector"] = connector.name
    try:
        request: BaseModel = declared.request.model_validate(fields)
    except ValidationError as error:
        raise invalid("malformed", "; ".join(mistakes_of(error))) from None
    return declared(Call(caller=auth.who(), known=connector, require_proof=auth.require_proof), request)


def refusal_of(declared: Operation[Any, Any], *, malformed: str = "", **fields: Any) -> str:
    """Run an operation; return its error and the next step, or an empty text.

    malformed  the message for an invalid form
    """
    try:
        perform(declared, **fields)
    except OperationError as error:
        return malformed if malformed and error.code == "malformed" else sentence_of(error)
    return ""


def sentence_of(error: OperationError) -> str:
    """Return the error and the next step as sentences."""
    reason = REASONS.get(error.code)
    return f"{reason.meaning} {reason.advice}" if reason else f"{error.message} {error.next_step}".rstrip()


def mistakes_of(error: ValidationError) -> list[str]:
    """Return each mistake as `field: message`, without the value, which may be a secret."""
    return [f"{' '.join(str(part) for part in each['loc'])}: {each['msg']}".strip(": ") for each in error.errors()]


def _to_login(*, saves: bool) -> Response:
    """Redirect to the login, which returns to this page.

    A form that was sent after its session had ended is kept in the login page, and shown again before it is sent. For a
    live part of a page, the whole page shows the login; a preview of edits leaves the page as it is.
    """
    if request.headers.get("HX-Request") and saves:
        return Response(status=HTTPStatus.UNAUTHORIZED)
    if request.headers.get("HX-Request"):
        return Response(status=HTTPStatus.UNAUTHORIZED, headers={"HX-Redirect": _login_url(_page_before())})
    if not saves:
        return redirect(_login_url(request.full_path.rstrip("?")), HTTPStatus.SEE_OTHER)
    if not auth.token():
        return redirect(_login_url("/"), HTTPStatus.SEE_OTHER)  # not from one of our sessions
    auth.require_same_origin()
    if auth.was_logged_in():
        request.max_content_length = request.max_form_memory_size = auth.MAX_FORM_BYTES
    try:
        kept = [(name, value) for name, value in request.form.items(multi=True) if name not in NOT_KEPT]
    except RequestEntityTooLarge:
        raise _too_long_to_keep() from None
    if not kept:
        return redirect(_login_url(_page_before()), HTTPStatus.SEE_OTHER)
    return login_page(_page_before(), json.dumps({"path": request.path, "fields": kept}))


def _too_long_to_keep() -> Refused:
    return Refused(
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        "Your session has ended, and this form is too long to be kept until you log in, so nothing was done.",
        "Log in in another tab, go back to this form, and send it again.",
    )


def read_pending(given: str) -> tuple[str, list[tuple[str, str]]] | None:
    """Return (path, fields) of a form that was kept until the login; None without a form, or if its path is not ours."""
    try:
        form = json.loads(given)
        path, fields = form["path"], [(str(name), str(value)) for name, value in form["fields"]]
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    return (path, fields) if isinstance(path, str) and path != "/" and auth.safe_path(path) == path else None


def login_page(wanted: str, pending: str = "", **values: Any) -> Response:
    """Return the login page; `pending` is a form to keep until after the login, as JSON of its path and fields."""
    return page("login.html", wanted=wanted, pending=pending, **values)


def _login_url(wanted: str) -> str:
    path = auth.safe_path(wanted)
    return "/login" if path == "/" else f"/login?next={quote(path)}"


def _page_before() -> str:
    """Return the path of our page that sent the request, or `/`."""
    parts = urlsplit(request.headers.get("HX-Current-URL") or request.referrer or "")
    if parts.netloc not in auth.own_hosts():
        return "/"
    return auth.safe_path(f"{parts.path}?{parts.query}" if parts.query else parts.path or "/")
