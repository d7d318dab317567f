"""The layout of all pages of the console, and the display format of values."""

from __future__ import annotations

import json
import re
from collections.abc import Container, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from itertools import accumulate
from typing import Any, Final, TypeVar
from urllib.parse import quote, unquote, urlencode

from flask import Flask, g, make_response, redirect, render_template, request
from markupsafe import Markup, escape
from werkzeug.wrappers import Response

from db import failure_filter
from db.connector import Connector
from db.session import transaction
from pipeline.accounts import operators
from pipeline.domain.kinds import Role
from pipeline.operations.cached_answers import Shared
from pipeline.operations.models import LARGEST_ID
from pipeline.web import auth
from pipeline.web.request_origin import cookie_named, delete_cookie, set_cookie

T = TypeVar("T")
TABS: Final = (
    ("", "Overview"),
    ("settings", "Settings"),
    ("credentials", "Credentials"),
    ("runs", "Runs"),
    ("jobs", "Jobs"),
    ("logs", "Logs"),
    ("failures", "Failures"),
    ("webhooks", "Webhooks"),
    ("workers", "Workers"),
)
"""The tabs of a connector: (last part of the address, label)."""
NOTICE: Final = "notice"
THEME: Final = "theme"
THEMES: Final = ("light", "dark")
LONGEST_SHOWN: Final = 400
"""Characters of one value in a table; its own page shows more."""
LONGEST_COOKIE: Final = 2_000
MOST_COUNTED: Final = 999
"""Maximum of open failures that a tab counts; above it, the tab shows "more"."""
NOTHING: Final = "\N{EN DASH}"
MARKS: Final[Mapping[str, str]] = {
    **dict.fromkeys(("success", "ok", "done", "replayed", "active", "applied"), "●"),
    **dict.fromkeys(("skip", "skipped", "discarded", "cancelled", "aborted", "none", "waiting"), "○"),
    **dict.fromkeys(("retry", "warning", "running", "creating", "shell", "computing"), "◐"),
    **dict.fromkeys(("error", "failed", "stopped", "setupRequired", "open", "conflict", "refused"), "▲"),
    **dict.fromkeys(("park", "parked", "paused", "held"), "‖"),
}
"""State → icon, because some people cannot distinguish colours."""
ARROWS: Final = {"incoming": "←", "outgoing": "→"}
HIDDEN: Final = frozenset(
    "\u200b\u200c\u200d\u2060\ufeff\u00ad\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u200e\u200f"
)
"""Invisible characters that change the text direction: shown by their code points."""
_HIDDEN: Final = re.compile(f"[{''.join(sorted(HIDDEN))}]")
_TAG: Final = re.compile(r"(<[^<>]*>)")
_FORM_FIELDS: Final = ("textarea", "option")


def register_layout(app: Flask) -> None:
    """Register filters and functions for templates."""
    app.jinja_env.trim_blocks = app.jinja_env.lstrip_blocks = True
    app.jinja_env.filters.update(
        ago=ago,
        moment=moment,
        number=number,
        took=took,
        mark=mark,
        glyph=glyph,
        shown=shown,
        jsonish=jsonish,
        arrow=arrow,
        plural=plural,
    )
    app.jinja_env.globals.update(query_with=query_with, csrf_field=csrf_field, may=may, now=lambda: datetime.now(UTC))


def page(
    template: str, *, connector: Connector | None = None, tab: str = "", status: int = 200, **values: Any
) -> Response:
    """Return a page; `tab` is the connector's tab that it belongs to."""
    notice = unquote(request.cookies.get(cookie_named(NOTICE), ""))
    theme = request.cookies.get(cookie_named(THEME), "")
    layout = {
        "connector": connector,
        "tab": tab,
        "tabs": TABS,
        "open_failures": _open_failures(connector.key) if connector else 0,
        "most_counted": MOST_COUNTED,
        "operator": g.get("operator"),
        "theme": theme if theme in THEMES else "",
        "notice": notice,
    }
    text = _with_hidden_shown(render_template(f"console/{template}", **layout, **values))
    answer = make_response(text.encode("utf-8", "backslashreplace"), status)
    if notice:
        delete_cookie(answer, NOTICE)
    return answer


def _count_open(connector_key: int) -> int:
    with transaction() as session:
        return failure_filter.count_open_up_to(session, connector_key, MOST_COUNTED + 1)


_open_failures = Shared(_count_open)


def forget_open() -> None:
    """Forget the shared counts of open failures, so that the next page shows a change."""
    _open_failures.forget()


def done(where: str, notice: str = "") -> Response:
    """Redirect after a form to a page, which begins with the notice."""
    answer = redirect(where, HTTPStatus.SEE_OTHER)
    if notice:
        set_cookie(answer, NOTICE, _short(notice), max_age=60)
    return answer


def _short(notice: str) -> str:
    """Cut a notice for its cookie: browsers drop longer ones, and proxies refuse answers with long headers."""
    written = [quote(each, errors="replace") for each in notice[:LONGEST_COOKIE]]
    lengths = accumulate(map(len, written))
    return "".join(each for each, length in zip(written, lengths, strict=True) if length <= LONGEST_COOKIE)


def csrf_field() -> Markup:
    """Return the hidden field that every form has."""
    return Markup('<input type="hidden" name="{}" value="{}">').format(auth.CSRF_FIELD, operators.csrf_of(auth.token()))


def may(needed: str) -> bool:
    """Return whether the current operator has this role; controls that need another role are not shown."""
    operator = g.get("operator")
    return operator is not None and Role(operator.role).may(Role(needed))


def connector_path(connector: Connector, below: str = "") -> str:
    """Return the address of a connector's page; `below` is the part behind the connector's name."""
    return f"/c/{quote(connector.name, safe='')}/{below}"


def split_page(found: Sequence[T], size: int, by: str = "id") -> tuple[Sequence[T], int | None]:
    """Return one page of a list that was read with one more entry, and where the next page begins (None: last page)."""
    shown = found[:size]
    return shown, getattr(shown[-1], by) if len(found) > size else None


def query_choice(name: str, values: Container[str]) -> str | None:
    """Return a query parameter if it is one of these values."""
    given = request.args.get(name)
    return given if given in values else None


def before_id(name: str = "before") -> int | None:
    """Return the id before which the requested part of a list begins; None if it is missing or impossible."""
    wanted = request.args.get(name, type=int)
    return wanted if wanted is not None and 0 < wanted <= LARGEST_ID else None


def query_with(**changes: Any) -> str:
    """Return this page's address with other parameters; None removes one. A parameter that is given several times stays so."""
    kept = [(name, value) for name, value in request.args.items(multi=True) if name not in changes]
    merged = kept + [(name, value) for name, value in changes.items() if value is not None]
    return f"{request.path}?{urlencode(merged)}" if merged else request.path


def ago(then: datetime | None) -> Markup:
    """Return how long ago, or how soon; the exact time is in the title and the `datetime` attribute."""
    if then is None:
        return Markup('<span class="muted">never</span>')
    seconds = (datetime.now(UTC) - then).total_seconds()
    text = "just now" if 0 <= seconds < 1 else f"{_span(seconds)} ago" if seconds >= 0 else f"in {_span(-seconds)}"
    return Markup('<time datetime="{}" title="{} UTC">{}</time>').format(
        then.astimezone(UTC).isoformat(), moment(then), text
    )


def moment(then: datetime | None) -> str:
    """Return `2026-11-03 14:03:20`, in UTC."""
    return then.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S") if then else "never"


def number(value: float | None) -> str:
    """Return a number with thousands separators."""
    if value is None:
        return NOTHING
    return f"{value:,.0f}" if float(value).is_integer() or abs(value) >= 100 else f"{value:,.1f}"


def took(value: float | timedelta | None) -> str:
    """Return `0.3 s`, `4 min 5 s` or `2 h 10 min`, from seconds."""
    if value is None:
        return NOTHING
    seconds = value.total_seconds() if isinstance(value, timedelta) else float(value)
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def mark(state: str | None, words: str | None = None) -> Markup:
    """Return a state by shape, word and colour."""
    name = state or "none"
    return Markup('<span class="state {}">{} {}</span>').format(
        name, MARKS.get(name, "○"), name if words is None else words
    )


def glyph(state: str) -> str:
    """Return the icon alone, if the sentence next to it has the same information."""
    return MARKS.get(state, "○")


def arrow(direction: str) -> Markup:
    """Return ← for Pipedrive to Hull, → for Hull to Pipedrive."""
    to = "Pipedrive to Hull" if direction.startswith("incoming") else "Hull to Pipedrive"
    return Markup('<span class="arrow" title="{}">{}</span>').format(to, ARROWS[direction.partition(".")[0]])


def plural(count: int, one: str, many: str = "") -> str:
    """Return `1 record` or `3 records`."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def shown(value: Any, longest: int = LONGEST_SHOWN) -> Markup:
    """Return a value of a record for display: escaped, cut, isolated from the text direction around it, and with
    invisible characters shown by code."""
    if value is None or value == "":
        return Markup('<span class="muted">{}</span>').format(NOTHING)
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    cut = "".join(_visible(each) for each in text[:longest])
    rest = Markup(' <span class="muted">… {} characters</span>').format(f"{len(text):,}") if len(text) > longest else ""
    return Markup("<bdi>{}</bdi>{}").format(cut, rest)


def jsonish(value: Any) -> Markup:
    """Return indented JSON."""
    text = json.dumps(value, ensure_ascii=False, indent=2, default=str)
    return escape("".join(_visible(each) for each in text))


def _with_hidden_shown(page: str) -> str:
    """Show hidden characters by code in the whole page, also in sentences, titles and buttons; form fields stay as they are."""
    if not _HIDDEN.search(page):
        return page
    parts, within = _TAG.split(page), ""
    for position, part in enumerate(parts):
        if position % 2:
            name = part[1:-1].partition(" ")[0]
            if within:
                within = "" if name == f"/{within}" else within
            elif name in _FORM_FIELDS:
                within = name
        elif not within:
            parts[position] = _HIDDEN.sub(lambda found: _visible(found[0]), part)
    return "".join(parts)


def _visible(character: str) -> str:
    hidden = character in HIDDEN or (character < " " and character not in "\n\t") or "\ud800" <= character <= "\udfff"
    return f"\\u{ord(character):04x}" if hidden else character


def _span(seconds: float) -> str:
    for size, unit in ((86_400 * 2, "d"), (3_600 * 2, "h"), (60 * 2, "min")):
        if seconds >= size:
            return f"{int(seconds // (size / 2))} {unit}"
    return f"{int(seconds)} s"
