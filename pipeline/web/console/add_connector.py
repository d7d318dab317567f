"""Add a connector, step by step, until the first record is synchronized.

`/connectors/new`           Hull's credentials, which create the connector
`/c/<name>/set-up`          redirects to the next step
`/c/<name>/set-up/<step>`   each step has an address, so that an interrupted person can continue there
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
from pipeline.web.console.layout import connector_path, done, page
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
MALFORMED: Final = "One of the values is too long, or has characters that Hull's do not have. Copy all three from Hull."


def add(pages: Pages) -> None:
    pages.page("/connectors/new", show_new, needs=Role.ADMIN)
    pages.action("/connectors/new", make, needs=Role.ADMIN)
    pages.page(WHERE, go_on, needs=Role.ADMIN)
    pages.page(f"{WHERE}/<step>", show_step, needs=Role.ADMIN)
    pages.action(f"{WHERE}/pipedrive/connect", connect, needs=Role.ADMIN)
    for step, act in ACTS.items():
        pages.action(f"{WHERE}/{step}", act, needs=Role.ADMIN)


def show_new(mistake: str = "", status: int = 200) -> Response:
    typed = {name: request.form.get(name, "")[:LONGEST] for name in ("name", "organization", "hull_id")}
    sandbox = first_steps.sandbox_file()
    with transaction() as session:
        others = [each.name for each in connectors.all_connectors(session)] if sandbox else []
    return page(
        "set_up_hull.html", status=status, steps=STEPS, typed=typed, mistake=mistake, sandbox=sandbox, others=others
    )


def make() -> Response:
    """Check the credentials in Hull before anything is stored; import the settings stored in Hull."""
    form = {key: request.form.get(key, "").strip() for key in ("name", "organization", "hull_id", "secret")}
    if not (form["organization"] and form["hull_id"] and form["secret"]):
        return show_new("Fill in the organization, the connector's id and its secret: all three are in Hull.", 400)
    try:
        made = perform(
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
    return done(f"/c/{made.name}/set-up/pipedrive", f"Hull accepts the credentials; {made.name} is here.")


def go_on(connector: Connector) -> Response:
    """Go to the next step; after the last one, to the first fetch."""
    following = perform(first_steps.show_steps).following
    return redirect(_at(connector, following or "first-fetch"), HTTPStatus.SEE_OTHER)


def show_step(connector: Connector, step: str, mistake: str = "", status: int = 200) -> Response:
    """Steps can be opened in any order; a step that cannot be done yet says so."""
    if step == "hull":
        return redirect(connector_path(connector, "credentials"), HTTPStatus.SEE_OTHER)
    if step not in DRAWN:
        raise auth.missing("There is no such step.", "Continue with the next one.")
    entered = perform(credentials.show_credentials)
    trouble = ""
    if step in ("identity", "mappings") and entered.connection.how:
        trouble = definitions.ensure_fields_known(connector.key)
    return page(
        f"set_up_{step.replace('-', '_')}.html",
        status=status,
        connector=connector,
        steps=STEPS,
        step=step,
        progress=perform(first_steps.show_steps),
        entered=entered,
        mistake=mistake or trouble,
        **DRAWN[step](connector),
    )


def use_token(connector: Connector) -> Response:
    token = request.form.get("token", "").strip()
    if refusal := refusal_of(credentials.put_api_token, secret=token, malformed=PASTE_TOKEN):
        return show_step(connector, "pipedrive", refusal, 400)
    return done(_at(connector, "identity"), "Pipedrive accepts the token.")


def connect(connector: Connector) -> Response:
    """A page with the link to Pipedrive, which leads back to the next step."""
    try:
        invitation = perform(credentials.invite)
    except OperationError as error:
        return show_step(connector, "pipedrive", sentence_of(error), 400)
    return page("connect.html", connector=connector, tab="", invitation=invitation)


def decide_identity(connector: Connector) -> Response:
    """A field for each claim; an empty one means that nothing feeds it."""
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
    return _decide(connector, "identity", values, "mappings", "Records are recognised by these from now on.")


def decide_mappings(connector: Connector) -> Response:
    """What is mapped stays; what was chosen of the suggestions is added."""
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
        sentence = "Choose at least one field: without any, Hull gets Pipedrive ids and nothing else."
        return show_step(connector, "mappings", sentence, 400)
    return _decide(connector, "mappings", values, "segments", f"{count} fields are mapped.")


def decide_segments(connector: Connector) -> Response:
    """Choosing no segment is a decision too: nothing is sent."""
    names = ("synchronized_user_segments", "synchronized_account_segments")
    values = {name: list(dict.fromkeys(request.form.getlist(name)))[:500] for name in names}
    return _decide(connector, "segments", values, "first-fetch", "It is decided who is sent.")


def fetch(connector: Connector) -> Response:
    """Start to fetch what was chosen."""
    chosen = [entity.value for entity in Entity if entity.plural in request.form.getlist("what")]
    if refusal := refusal_of(runs.start_first_fetches, entities=chosen, malformed="Choose what to fetch."):
        return show_step(connector, "first-fetch", refusal, 400)
    return done(_at(connector, "first-fetch"), "The fetch has begun. This page follows it.")


def _decide(connector: Connector, step: str, values: dict[str, Any], following: str, words: str) -> Response:
    now = perform(settings.show_settings)
    try:
        perform(settings.put_settings, document=now.document | values, base_version=now.version, keep_defaults=True)
    except OperationError as refused:
        return show_step(connector, step, "; ".join(refused.mistakes) or sentence_of(refused), refused.status)
    return done(_at(connector, following), words)


def _draw_nothing(_connector: Connector) -> dict[str, Any]:
    return {}


def _draw_identity(connector: Connector) -> dict[str, Any]:
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


def _draw_mappings(connector: Connector) -> dict[str, Any]:
    document, offered = _suggested(connector)
    return {"offered": offered, "mapped": {name: len(document[name]) for name in offered}}


def _draw_segments(_connector: Connector) -> dict[str, Any]:
    document = _settings()
    names = ("synchronized_user_segments", "synchronized_account_segments")
    return {"segments": perform(fields.list_segments), "chosen": {name: document[name] for name in names}}


def _draw_first_fetch(connector: Connector) -> dict[str, Any]:
    with transaction() as session:
        found = first_steps.full_runs(session, connector.key)
    is_running = any(run.state == "running" for run in found)
    return {"runs": found, "is_running": is_running, "expected": perform(first_steps.show_steps).first_fetch}


def _suggested(connector: Connector) -> tuple[dict[str, Any], dict[str, list[SuggestionShape]]]:
    """Return the settings in force, and rows to offer by setting."""
    with transaction() as session:
        offered = suggested(session, connector.key)
    return _settings(), offered


def _settings() -> dict[str, Any]:
    """Return the settings in force, with every default."""
    return with_defaults(perform(settings.show_settings).document)


def _host(given: str) -> str:
    """People paste addresses; what counts is the host."""
    return given.removeprefix("https://").removeprefix("http://").partition("/")[0]


def _at(connector: Connector, step: str) -> str:
    return connector_path(connector, f"set-up/{step}")


DRAWN: Final[Mapping[str, Callable[[Connector], dict[str, Any]]]] = {
    "pipedrive": _draw_nothing,
    "identity": _draw_identity,
    "mappings": _draw_mappings,
    "segments": _draw_segments,
    "first-fetch": _draw_first_fetch,
}
"""Step → what its page needs besides."""
ACTS: Final[Mapping[str, Callable[[Connector], Response]]] = {
    "pipedrive": use_token,
    "identity": decide_identity,
    "mappings": decide_mappings,
    "segments": decide_segments,
    "first-fetch": fetch,
}
