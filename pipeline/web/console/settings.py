"""Settings of a connector, section by section: look, edit, see what it does to a real record, review, save as a version.

`/c/<name>/settings`            what is in force, in a few words each
`/c/<name>/settings/<section>`  one part of it; every edit is a form, so nothing needs a script
`/c/<name>/settings/review`     what saving would do, before it is done
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any, Final

from flask import current_app, request
from werkzeug.wrappers import Response

from db import connector as connectors
from db.connector import Connector
from db.session import transaction
from pipeline.domain.kinds import Role
from pipeline.insight import settings_editing as editing
from pipeline.insight import settings_text
from pipeline.insight.settings_editing import Mistake, SettingsMistaken, SettingsMoved
from pipeline.insight.settings_words import TITLES
from pipeline.operations import fields
from pipeline.operations import settings as operations
from pipeline.operations.errors import OperationError
from pipeline.web.console import guard, settings_pages
from pipeline.web.console.calls import perform
from pipeline.web.console.frame import done, page
from pipeline.web.console.guard import Pages
from pipeline.web.console.settings_forms import (
    BY_SLUG,
    SECTION_OF,
    SECTIONS,
    Document,
    Section,
    changed_rows,
    effective,
    typed_in,
    with_values,
    without_empty_rows,
)

TAB = ("settings", "Settings")
WHERE: Final = "/c/<name>/settings"
PLANS: Final = "/c/<name>/plans"
"""Where a document may be previewed against all known records, where that page is installed."""


def add(pages: Pages) -> None:
    pages.page(WHERE, show)
    pages.page(f"{WHERE}/<section>", show_section)
    pages.action(f"{WHERE}/<section>", edit_section, needs=Role.ADMIN)
    pages.page(f"{WHERE}/json", show_json)
    pages.action(f"{WHERE}/json", review_json, needs=Role.ADMIN)
    pages.action(f"{WHERE}/save", save, needs=Role.ADMIN)
    pages.action(f"{WHERE}/rebase", rebase, needs=Role.ADMIN)
    pages.action(f"{WHERE}/read-fields", read_fields, needs=Role.ADMIN)


def show(connector: Connector) -> Response:
    """Each section in a line."""
    with transaction() as session:
        now = connectors.settings_in_force(session, connector.key)
        catalogs = editing.catalogs_of(session, connector.key)
    lines = settings_pages.summaries(SECTIONS, now.document, catalogs, connector_id=connector.id)
    return page("settings.html", connector=connector, tab="settings", now_in_force=now, lines=lines)


def show_section(connector: Connector, section: str) -> Response:
    chosen = _section(section)
    with transaction() as session:
        now = connectors.settings_in_force(session, connector.key)
    values = effective(now.document)
    return _page(connector, chosen, {name: values[name] for name in chosen.settings}, base=now.version)


def edit_section(connector: Connector, section: str) -> Response:
    """`do` is the button: add or remove a row, preview, review; `back` is sent by the review."""
    chosen, base, act = _section(section), _base(), request.form.get("do", "review")
    if act == "back":
        values = effective_or_typed(_document())
        return _page(connector, chosen, {name: values[name] for name in chosen.settings}, base=base)
    if act.startswith(("add:", "remove:")):
        return _page(connector, chosen, changed_rows(chosen, request.form, act), base=base)
    typed = without_empty_rows(typed_in(chosen, request.form)) if act == "review" else typed_in(chosen, request.form)
    if act != "review":
        return _page(connector, chosen, typed, base=base)
    return review(connector, with_values(typed, _ground(connector, base)), base, section=chosen, typed=typed)


def review(
    connector: Connector,
    document: Document,
    base: int,
    *,
    section: Section | None,
    typed: Document | None = None,
) -> Response:
    """What saving would do; or the page again, with every mistake at its place."""
    try:
        found = perform(operations.review_settings, document=document, base_version=base)
    except OperationError as refused:
        return _refused(connector, section, document, base, refused, typed=typed)
    return page(
        "settings_review.html",
        connector=connector,
        tab="settings",
        section=section,
        found=found,
        document=json.dumps(document, ensure_ascii=False),
        base=base,
        plans=f"/c/{connector.name}/plans" if _has_plans() else "",
    )


def save(connector: Connector) -> Response:
    """Save the reviewed settings, unless another version was saved since."""
    document, base = _document(), _base()
    section = BY_SLUG.get(request.form.get("section", ""))
    try:
        saved = perform(operations.put_settings, document=document, base_version=base)
    except OperationError as refused:
        return _refused(connector, section, document, base, refused)
    where = f"/c/{connector.name}/settings" + (f"/{section.slug}" if section else "")
    if not saved.changed:
        return done(where, f"Nothing differs from version {base}, which stays in force.")
    return done(where, f"Version {saved.version} is in force. It is sent to Hull, and the resulting runs have started.")


def rebase(connector: Connector) -> Response:
    """Show the operator's edits on top of the version that somebody else saved since."""
    rebased = perform(operations.rebase_settings, document=_document(), base_version=_base())
    return review(
        connector, rebased.document, rebased.base_version, section=BY_SLUG.get(request.form.get("section", ""))
    )


def show_json(connector: Connector) -> Response:
    with transaction() as session:
        now = connectors.settings_in_force(session, connector.key)
    text = settings_text.pretty(settings_text.effective(now.document))
    return page(
        "settings_json.html",
        connector=connector,
        tab="settings",
        text=text,
        base=now.version,
        sections=SECTIONS,
        mistakes=(),
    )


def review_json(connector: Connector) -> Response:
    text = request.form.get("document", "")
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        return _json_again(connector, text, [Mistake(setting="", position=None, words=f"This is no JSON: {error}")])
    if not isinstance(document, dict):
        return _json_again(connector, text, [Mistake(setting="", position=None, words="Settings are one JSON object.")])
    return review(connector, document, _base(), section=None)


def read_fields(connector: Connector) -> Response:
    """Read Pipedrive's fields again, for instance after one was created."""
    section = BY_SLUG.get(request.form.get("section", ""))
    where = f"/c/{connector.name}/settings" + (f"/{section.slug}" if section else "")
    try:
        perform(fields.read_fields)
    except OperationError as unwell:
        return done(where, f"Pipedrive did not tell its fields: {unwell.message}. Those that were read last are shown.")
    return done(where, "The fields are as Pipedrive has them now.")


def effective_or_typed(document: Document) -> Document:
    """Return the settings with defaults, if the document is valid."""
    try:
        return effective(document)
    except ValueError:
        return {**effective({}), **document}


def _page(
    connector: Connector,
    section: Section,
    values: Document,
    *,
    base: int,
    mistakes: tuple[Mistake, ...] = (),
    status: int = 200,
) -> Response:
    wanted = request.values.get("record", "").strip()[:100]
    with transaction() as session:
        shown = settings_pages.draw(session, connector.key, section, values, wanted=wanted, mistakes=mistakes)
        now = connectors.settings_in_force(session, connector.key)
    return page(
        "settings_section.html",
        status=status,
        connector=connector,
        tab="settings",
        section=section,
        sections=SECTIONS,
        titles=TITLES,
        values=values,
        base=base,
        in_force=now,
        mistakes=mistakes,
        segments=perform(fields.list_segments) if section.kind == "segments" else None,
        clock=datetime.now(UTC),
        **shown,
    )


def _refused(
    connector: Connector,
    section: Section | None,
    document: Document,
    base: int,
    error: OperationError,
    *,
    typed: Document | None = None,
) -> Response:
    """Show the typed settings with every mistake at its position, or the changes that somebody else saved since."""
    cause = error.__cause__
    if isinstance(cause, SettingsMoved):
        return _moved(connector, document, base, cause, section)
    if isinstance(cause, SettingsMistaken):
        return _mistaken(connector, section, typed if typed is not None else document, base, cause.mistakes)
    if error.code == "malformed":
        mistake = Mistake(setting="", position=None, words=error.message)
        return _json_again(connector, settings_text.pretty(document), [mistake], base)
    raise error


def _mistaken(
    connector: Connector, section: Section | None, values: Document, base: int, mistakes: tuple[Mistake, ...]
) -> Response:
    """Show mistakes at the rows if all of them belong to this page, otherwise in the whole document."""
    mine = section is not None and all(each.setting in section.settings for each in mistakes)
    if section is None or not mine:
        return _json_again(connector, settings_text.pretty(values), mistakes, base)
    whole = effective_or_typed(values)
    shown = {name: whole[name] for name in section.settings}
    return _page(connector, section, shown, base=base, mistakes=mistakes, status=400)


def _json_again(connector: Connector, text: str, mistakes: Any, base: int | None = None) -> Response:
    return page(
        "settings_json.html",
        status=400,
        connector=connector,
        tab="settings",
        text=text,
        base=base if base is not None else _base(),
        sections=SECTIONS,
        mistakes=mistakes,
        section_of=SECTION_OF,
    )


def _moved(
    connector: Connector, document: Document, base: int, moved: SettingsMoved, section: Section | None
) -> Response:
    return page(
        "settings_moved.html",
        status=409,
        connector=connector,
        tab="settings",
        moved=moved,
        section=section,
        base=base,
        document=json.dumps(document, ensure_ascii=False),
    )


def _section(slug: str) -> Section:
    if slug not in BY_SLUG:
        raise guard.missing("There is no such section of the settings.", "Choose one from the settings.")
    return BY_SLUG[slug]


def _base() -> int:
    given = request.form.get("base", "")
    if not (given.isascii() and given.isdigit() and len(given) < 10):
        raise guard.missing("This form does not say which version it edits.", "Open the settings again.")
    return int(given)


def _document() -> Document:
    try:
        document = json.loads(request.form.get("document", ""))
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict):
        raise guard.missing("This form holds no settings.", "Open the settings again.")
    return document


def _ground(connector: Connector, base: int) -> Document:
    with transaction() as session:
        found = connectors.find_settings(session, connector.key, base)
    if found is None:
        raise guard.missing(f"There is no version {base}.", "Open the settings again.")
    return found.document


def _has_plans() -> bool:
    return any(rule.rule == PLANS and "POST" in (rule.methods or ()) for rule in current_app.url_map.iter_rules())
