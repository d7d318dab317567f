"""Add a connector, step by step, until the first record is synchronized.

`/connectors/new`           Hull's credentials, which create the connector
`/c/<name>/set-up`          redirects to the next step
`/c/<name>/set-up/<step>`   one step
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any, Final

from flask import redirect, request
from werkzeug.wrappers import Response

from db import connector as connectors
from db.connector import Connector
from db.session import transaction
from pipeline.domain.kinds import Claim, Entity, Role
from pipeline.operations import connectors as operations
from pipeline.operations import credentials, fields, first_steps, runs, settings
from pipeline.operations.errors import OperationError
from pipeline.operations.fields import SuggestionShape, fields_of, suggested
from pipeline.sync import definitions
from pipeline.web import auth
from pipeline.web.console.credentials import PASTE_TOKEN
from pipeline.web.console.layout import connector_path, done, page, plural
from pipeline.web.console.pages import Pages, perform, refusal_of, sentence_of
from pipeline.web.console.settings_forms import with_defaults

STEPS: Final[Mapping[str, str]] = {
    "hull": "Hull",
    "pipedrive": "Pipedrive",
    "identity": "Identity",
    "mappings": "Mappings",
    "segments": "Segments",
    "first-fetch": "First fetch",
}
WHERE: Final = "/c/<name>/set-up"
LONGEST: Final = 255
MALFORMED: Final = "A value is too long or contains invalid characters. Copy all three from Hull."


def add(pages: Pages) -> None:
    pages.page("/connectors/new", show_new, needs=Role.ADMIN)
    pages.action("/connectors/new", add_connector, needs=Role.ADMIN)
    pages.page(WHERE, show_next_step, needs=Role.ADMIN)
    pages.page(f"{WHERE}/<step>", show_step, needs=Role.ADMIN)
    pages.action(f"{WHERE}/pipedrive/connect", connect, needs=Role.ADMIN)
    for step, action in ACTIONS.items():
        pages.action(f"{WHERE}/{step}", action, needs=Role.ADMIN)


def show_new(mistake: str = "", status: int = 200) -> Response:
    typed = {name: request.form.get(name, "")[:LONGEST] for name in ("name", "organization", "hull_id")}
    sandbox = first_steps.sandbox_file()
    with transaction() as session:
        others = [each.name for each in connectors.all_connectors(session)] if sandbox else []
    return page(
        "set_up_hull.html", status=status, steps=STEPS, typed=typed, mistake=mistake, sandbox=sandbox, others=others
    )


def add_connector() -> Response:
    """Check the credentials in Hull, create the connector, and import its settings from Hull."""
    form = {key: request.form.get(key, "").strip() for key in ("name", "organization", "hull_id", "secret")}
    if not (form["organization"] and form["hull_id"] and form["secret"]):
        return show_new("Fill in the organization, the connector's id and its secret. You find all three in Hull.", 400)
    try:
        added = perform(
            operations.add_connector,
            name=form["name"],
            hull_organization=_host(form["organization"]),
            hull_id=form["hull_id"],
            hull_secret=form["secret"],
        ).connector
    except OperationError as error:
        mistakes = "; ".join(error.mistakes)
        if error.code == "malformed":
            return show_new(MALFORMED, 400)
        return show_new(f"Hull's settings of this connector: {mistakes}" if mistakes else sentence_of(error), 400)
    return done(f"/c/{added.name}/set-up/pipedrive", f"Hull accepted the credentials. {added.name} was added.")


def show_next_step(connector: Connector) -> Response:
    """Redirect to the next step, or to the first fetch if all are done."""
    following = perform(first_steps.show_steps).following
    return redirect(_at(connector, following or "first-fetch"), HTTPStatus.SEE_OTHER)


def show_step(connector: Connector, step: str, mistake: str = "", status: int = 200) -> Response:
    """Show a step. Steps can be opened in any order."""
    if step == "hull":
        return redirect(connector_path(connector, "credentials"), HTTPStatus.SEE_OTHER)
    if step not in VALUES:
        raise auth.missing("This step does not exist.", "Continue with the next one.")
    entered = perform(credentials.show_credentials)
    problem = ""
    if step in ("identity", "mappings") and entered.connection.how:
        problem = definitions.ensure_fields_known(connector.key)
    return page(
        f"set_up_{step.replace('-', '_')}.html",
        status=status,
        connector=connector,
        steps=STEPS,
        step=step,
        progress=perform(first_steps.show_steps),
        entered=entered,
        mistake=mistake or problem,
        **VALUES[step](connector),
    )


def use_token(connector: Connector) -> Response:
    token = request.form.get("token", "").strip()
    if refusal := refusal_of(credentials.put_api_token, secret=token, malformed=PASTE_TOKEN):
        return show_step(connector, "pipedrive", refusal, 400)
    return done(_at(connector, "identity"), "Pipedrive accepted the token.")


def connect(connector: Connector) -> Response:
    """Show the link to Pipedrive, which leads back to the next step."""
    try:
        invitation = perform(credentials.invite)
    except OperationError as error:
        return show_step(connector, "pipedrive", sentence_of(error), 400)
    return page("connect.html", connector=connector, tab="", invitation=invitation)


def save_identity(connector: Connector) -> Response:
    """Save the field for each claim; an empty choice means no field."""
    rules = {
        "user_claims": [(Claim.EMAIL, "user_email"), (Claim.EXTERNAL_ID, "user_external_id")],
        "account_claims": [(Claim.DOMAIN, "account_domain"), (Claim.EXTERNAL_ID, "account_external_id")],
    }
    values = {
        setting: [
            {"hull": claim.value, "service": code}
            for claim, name in pairs
            if (code := request.form.get(name, "").strip()[:LONGEST])
        ]
        for setting, pairs in rules.items()
    }
    return _save(connector, "identity", values, "mappings", "Identity saved.")


def save_mappings(connector: Connector) -> Response:
    """Add the chosen suggestions to the saved mappings."""
    document, offered = _suggested(connector)
    values: dict[str, Any] = {}
    count = 0
    for setting, rows in offered.items():
        chosen = set(request.form.getlist(setting))
        new = [{"hull": row.hull, "service": row.service} for row in rows if row.service in chosen]
        count += len(new)
        if new:
            values[setting] = [*document[setting], *new]
    if not values and not any(document[setting] for setting in offered if setting.startswith("incoming")):
        sentence = "Choose at least one field. Without any, Hull receives only Pipedrive ids."
        return show_step(connector, "mappings", sentence, 400)
    return _save(connector, "mappings", values, "segments", f"Mappings saved: {plural(count, 'new field')}.")


def save_segments(connector: Connector) -> Response:
    """Save the chosen segments; without any, nothing is sent."""
    names = ("synchronized_user_segments", "synchronized_account_segments")
    values = {name: list(dict.fromkeys(request.form.getlist(name)))[:500] for name in names}
    return _save(connector, "segments", values, "first-fetch", "Segments saved.")


def fetch(connector: Connector) -> Response:
    """Start the chosen fetches."""
    chosen = [entity.value for entity in Entity if entity.plural in request.form.getlist("what")]
    if refusal := refusal_of(
        runs.start_first_fetches, entities=chosen, malformed="Choose Persons, Organizations or both."
    ):
        return show_step(connector, "first-fetch", refusal, 400)
    return done(_at(connector, "first-fetch"), "Fetch started. This page shows its progress.")


def _save(connector: Connector, step: str, values: dict[str, Any], following: str, notice: str) -> Response:
    now = perform(settings.show_settings)
    try:
        perform(settings.put_settings, document=now.document | values, base_version=now.version, keep_defaults=True)
    except OperationError as refused:
        return show_step(connector, step, "; ".join(refused.mistakes) or sentence_of(refused), refused.status)
    return done(_at(connector, following), notice)


def _no_values(_connector: Connector) -> dict[str, Any]:
    return {}


def _identity_values(connector: Connector) -> dict[str, Any]:
    with transaction() as session:
        known = {entity: fields_of(session, connector.key, entity) for entity in Entity}
    document = _settings()
    claims = {
        f"{setting.partition('_')[0]}_{row['hull']}": row["service"]
        for setting in ("account_claims", "user_claims")
        for row in reversed(document[setting])
    }
    missing = first_steps.needs_domain_field(known[Entity.ORGANIZATION])
    codes = {each.code for each in known[Entity.ORGANIZATION].choices}
    if missing and claims.get("account_domain") not in codes:
        claims.pop("account_domain", None)
    return {"fields": known, "claims": claims, "needs_domain": missing}


def _mappings_values(connector: Connector) -> dict[str, Any]:
    document, offered = _suggested(connector)
    return {"offered": offered, "mapped": {name: len(document[name]) for name in offered}}


def _segments_values(_connector: Connector) -> dict[str, Any]:
    document = _settings()
    names = ("synchronized_user_segments", "synchronized_account_segments")
    return {"segments": perform(fields.list_segments), "chosen": {name: document[name] for name in names}}


def _first_fetch_values(connector: Connector) -> dict[str, Any]:
    with transaction() as session:
        found = first_steps.full_runs(session, connector.key)
    is_running = any(run.state == "running" for run in found)
    return {"runs": found, "is_running": is_running, "expected": perform(first_steps.show_steps).first_fetch}


def _suggested(connector: Connector) -> tuple[dict[str, Any], dict[str, list[SuggestionShape]]]:
    """Return the settings in force, and the suggested rows by setting."""
    with transaction() as session:
        offered = suggested(session, connector.key)
    return _settings(), offered


def _settings() -> dict[str, Any]:
    """Return the settings in force, with every default."""
    return with_defaults(perform(settings.show_settings).document)


def _host(given: str) -> str:
    """Return the host of a host name or a pasted address."""
    return given.removeprefix("https://").removeprefix("http://").partition("/")[0]


def _at(connector: Connector, step: str) -> str:
    return connector_path(connector, f"set-up/{step}")


VALUES: Final[Mapping[str, Callable[[Connector], dict[str, Any]]]] = {
    "pipedrive": _no_values,
    "identity": _identity_values,
    "mappings": _mappings_values,
    "segments": _segments_values,
    "first-fetch": _first_fetch_values,
}
"""Step → function that returns the values of its page."""
ACTIONS: Final[Mapping[str, Callable[[Connector], Response]]] = {
    "pipedrive": use_token,
    "identity": save_identity,
    "mappings": save_mappings,
    "segments": save_segments,
    "first-fetch": fetch,
}
