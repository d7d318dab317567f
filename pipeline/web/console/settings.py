"""The settings of a connector: edit them by section, try them on a real record, review the changes, and save a version.

`/c/<name>/settings`            the values in force, by section
`/c/<name>/settings/<section>`  one section; every edit is a form and works without JavaScript
`/c/<name>/settings/history`    the versions with author, time and changes; compare two, or roll back to one
"""

from __future__ import annotations

import json
from typing import Any, Final

from flask import request
from werkzeug.wrappers import Response

from db.connector import Connector
from db.session import transaction
from pipeline.domain.kinds import Role
from pipeline.domain.setting_texts import TITLES
from pipeline.operations import fields, settings_differences
from pipeline.operations import settings as operations
from pipeline.operations import settings_editing as editing
from pipeline.operations.errors import OperationError
from pipeline.operations.settings import SettingsShape, roll_back_settings
from pipeline.operations.settings_editing import MistakeShape, SettingsMistaken, SettingsMoved
from pipeline.web import auth
from pipeline.web.console import settings_forms
from pipeline.web.console.layout import before_id, connector_path, done, page, split_page
from pipeline.web.console.pages import Pages, perform, sentence_of
from pipeline.web.console.settings_forms import (
    BY_SLUG,
    SECTIONS,
    Document,
    NotSettings,
    Section,
    changed_rows,
    parse_document,
    typed_in,
    with_defaults,
    with_values,
    without_empty_rows,
)

WHERE: Final = "/c/<name>/settings"
HISTORY = "/c/<name>/settings/history"
VERSIONS = 30


def add(pages: Pages) -> None:
    pages.page(WHERE, show)
    pages.page(f"{WHERE}/<section>", show_section)
    pages.action(f"{WHERE}/<section>", edit_section, needs=Role.ADMIN)
    pages.page(f"{WHERE}/json", show_json)
    pages.action(f"{WHERE}/json", review_json, needs=Role.ADMIN)
    pages.action(f"{WHERE}/save", save, needs=Role.ADMIN)
    pages.action(f"{WHERE}/rebase", rebase, needs=Role.ADMIN)
    pages.action(f"{WHERE}/read-fields", read_fields, needs=Role.ADMIN)
    pages.page(HISTORY, show_history)
    pages.page(f"{HISTORY}/<int:version>", show_version)
    pages.action(f"{HISTORY}/<int:version>/roll-back", roll_back, needs=Role.ADMIN)


def show(connector: Connector) -> Response:
    """Show the values of each section in one line."""
    now = perform(operations.show_settings)
    with transaction() as session:
        catalogs = editing.catalogs_of(session, connector.key)
    lines = settings_forms.summaries(SECTIONS, now.document, catalogs, connector_id=connector.id)
    return page("settings.html", connector=connector, tab="settings", now_in_force=now, lines=lines)


def show_section(connector: Connector, section: str) -> Response:
    chosen = _section(section)
    now = perform(operations.show_settings)
    values = with_defaults(now.document)
    return _page(connector, chosen, {name: values[name] for name in chosen.settings}, base=now.version)


def edit_section(connector: Connector, section: str) -> Response:
    """Handle a button of a section: `do` is add or remove a row, preview, review, or back from the review."""
    chosen, base, act = _section(section), _base(), request.form.get("do", "review")
    if act == "back":
        values = with_defaults_or_typed(_document())
        return _page(connector, chosen, {name: values[name] for name in chosen.settings}, base=base)
    if act.startswith(("add:", "remove:")):
        return _page(connector, chosen, changed_rows(chosen, request.form, act), base=base)
    typed = typed_in(chosen, request.form)
    if act != "review":
        return _page(connector, chosen, typed, base=base)
    typed = without_empty_rows(typed)
    document = with_values(typed, perform(operations.show_settings, version=base).document)
    return review(connector, document, base, section=chosen, typed=typed)


def review(
    connector: Connector,
    document: Document,
    base: int,
    *,
    section: Section | None,
    typed: Document | None = None,
) -> Response:
    """Show what saving would change, or the page again with every mistake at its position."""
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
        plans=connector_path(connector, "plans"),
    )


def save(connector: Connector) -> Response:
    """Save the reviewed settings, unless another version was saved since."""
    document, base = _document(), _base()
    section = BY_SLUG.get(request.form.get("section", ""))
    try:
        saved = perform(operations.put_settings, document=document, base_version=base)
    except OperationError as refused:
        return _refused(connector, section, document, base, refused)
    where = _path(connector, section)
    if not saved.changed:
        return done(where, f"Nothing was changed: version {base} has the same settings.")
    return done(
        where, f"Version {saved.version} is in force. It is sent to Hull, and the runs that it needs have started."
    )


def rebase(connector: Connector) -> Response:
    """Review the operator's edits on top of the version that another operator saved since."""
    rebased = perform(operations.rebase_settings, document=_document(), base_version=_base())
    return review(
        connector, rebased.document, rebased.base_version, section=BY_SLUG.get(request.form.get("section", ""))
    )


def show_json(connector: Connector) -> Response:
    now = perform(operations.show_settings, defaults=True)
    return page(
        "settings_json.html",
        connector=connector,
        tab="settings",
        text=settings_differences.pretty(now.document),
        base=now.version,
        sections=SECTIONS,
        mistakes=(),
    )


def review_json(connector: Connector) -> Response:
    text = request.form.get("document", "")
    try:
        document = parse_document(text)
    except NotSettings as error:
        return _json_again(connector, text, [MistakeShape(setting="", position=None, words=str(error))])
    return review(connector, document, _base(), section=None)


def read_fields(connector: Connector) -> Response:
    """Read Pipedrive's fields again, for instance after one was created."""
    section = BY_SLUG.get(request.form.get("section", ""))
    where = _path(connector, section)
    try:
        perform(fields.read_fields)
    except OperationError as error:
        return done(
            where,
            f"Pipedrive's fields could not be read. {sentence_of(error)} The page shows the fields that were read last.",
        )
    return done(where, "Pipedrive's fields were read again.")


def show_history(connector: Connector) -> Response:
    """Show versions with their changes, newest first."""
    found = perform(operations.list_settings, before=before_id(), limit=VERSIONS + 1).versions
    shown, more = split_page(found, VERSIONS, by="version")
    earlier = {each.version: each.document for each in found}
    with transaction() as session:
        changes = {
            each.version: editing.between(session, connector.key, earlier.get(each.version - 1, {}), each.document)
            for each in shown
        }
    return page(
        "settings_history.html",
        connector=connector,
        tab="settings",
        sections=SECTIONS,
        entries=shown,
        changes=changes,
        now_in_force=perform(operations.show_settings).version,
        more=more,
    )


def show_version(connector: Connector, version: int, mistakes: tuple[str, ...] = (), status: int = 200) -> Response:
    """Show one version compared with another one, by default the previous one."""
    against = before_id("against")
    found, now = _find_version(version), perform(operations.show_settings)
    against = against or (version - 1 if version > 1 else None)
    other = _find_version(against) if against is not None else None
    with transaction() as session:
        changes = editing.between(session, connector.key, other.document if other else {}, found.document)
        back = editing.between(session, connector.key, now.document, found.document)
    return page(
        "settings_version.html",
        status=status,
        connector=connector,
        tab="settings",
        sections=SECTIONS,
        version=found,
        other=other,
        now_in_force=now,
        changes=changes,
        back=back,
        mistakes=mistakes,
    )


def roll_back(connector: Connector, version: int) -> Response:
    """Roll back to a version, if the operator typed its number."""
    _find_version(version)
    if request.form.get("confirm", "").strip() != str(version):
        return show_version(connector, version, (f"Type {version} to roll back to that version.",), 400)
    why = request.form.get("why", "").strip()[:500] or None
    try:
        made = perform(roll_back_settings, version=version, why=why)
    except OperationError as refused:
        return show_version(connector, version, tuple(refused.mistakes) or (sentence_of(refused),), refused.status)
    return done(
        connector_path(connector, "settings/history"),
        f"Version {made.version} is in force, with the settings of version {version}.",
    )


def with_defaults_or_typed(document: Document) -> Document:
    """Return the settings with defaults, if the document is valid."""
    try:
        return with_defaults(document)
    except ValueError:
        return {**with_defaults({}), **document}


def _page(
    connector: Connector,
    section: Section,
    values: Document,
    *,
    base: int,
    mistakes: tuple[MistakeShape, ...] = (),
    status: int = 200,
) -> Response:
    wanted = request.values.get("record", "").strip()[:100]
    with transaction() as session:
        shown = settings_forms.draw(session, connector.key, section, values, wanted=wanted, mistakes=mistakes)
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
        in_force=perform(operations.show_settings),
        mistakes=mistakes,
        segments=perform(fields.list_segments) if section.kind == "segments" else None,
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
    """Show the typed settings with every mistake at its position, or the changes that another operator saved since."""
    if isinstance(error, SettingsMoved):
        return page(
            "settings_moved.html",
            status=409,
            connector=connector,
            tab="settings",
            moved=error,
            section=section,
            base=base,
            document=json.dumps(document, ensure_ascii=False),
        )
    if isinstance(error, SettingsMistaken):
        return _mistaken(connector, section, typed if typed is not None else document, base, error.placed)
    if error.code == "malformed":
        mistake = MistakeShape(setting="", position=None, words=error.message)
        return _json_again(connector, settings_differences.pretty(document), [mistake], base)
    raise error


def _mistaken(
    connector: Connector, section: Section | None, values: Document, base: int, mistakes: tuple[MistakeShape, ...]
) -> Response:
    """Show mistakes at their rows if all of them belong to this section, otherwise in the whole document."""
    if section is None or any(each.setting not in section.settings for each in mistakes):
        return _json_again(connector, settings_differences.pretty(values), mistakes, base)
    whole = with_defaults_or_typed(values)
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
    )


def _path(connector: Connector, section: Section | None) -> str:
    return connector_path(connector, f"settings/{section.slug}" if section else "settings")


def _section(slug: str) -> Section:
    if slug not in BY_SLUG:
        raise auth.missing("There is no such section of the settings.", "Choose one from the settings.")
    return BY_SLUG[slug]


def _base() -> int:
    given = request.form.get("base", "")
    if not (given.isascii() and given.isdigit() and len(given) < 10):
        raise auth.missing("The version of this form is missing.", "Open the settings again.")
    return int(given)


def _document() -> Document:
    try:
        return parse_document(request.form.get("document", ""))
    except NotSettings:
        raise auth.missing("The settings of this form are missing.", "Open the settings again.") from None


def _find_version(version: int) -> SettingsShape:
    try:
        return perform(operations.show_settings, version=version)
    except OperationError:
        message = f"There is no version {version} of these settings."
        raise auth.missing(message, "Choose one from the history.") from None
