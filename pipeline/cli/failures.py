"""`pipeline failures`: list, group, show, replay, discard what gave up."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from typing import Any

import click

from db import audit, failure_filter
from db import failure as rows
from db.failure import Failure
from db.session import transaction
from pipeline.cli.audited import audited, operator_name
from pipeline.cli.failure_filters import by_connector, filter_options, get_failure, is_empty, read_filter
from pipeline.cli.opening import open_database
from pipeline.cli.showing import Failed, columns_of, json_option, moment, say, show, table
from pipeline.domain.reasons import REASONS
from pipeline.insight import failures as insight
from pipeline.insight import verdicts
from pipeline.insight.replays import WORDS
from pipeline.insight.verdicts import Verdict

COLUMNS = (
    "id", "state", "kind", "direction", "entity", "record_id", "stage", "reason", "field", "detail", "attempts",
    "fingerprint", "run_id", "batch_id", "task_id", "settings_version", "closed_by", "closed_why", "created_at", "updated_at",
)  # fmt: skip
verdict_option = click.option(
    "--verdict", "with_verdict", is_flag=True, help="Say what replaying each now would come to, for no tokens."
)


@click.group(name="failures")
def group() -> None:
    """Failures: what gave up, kept whole until it is replayed or discarded.

    \b
    Example:
      pipeline failures groups --connector acme
      pipeline failures replay --connector acme --reason no_update_time --wait
    """


@group.command(name="list")
@filter_options
@click.option("--all", "closed_too", is_flag=True, help="Closed ones too.")
@click.option("--limit", default=50, show_default=True, help="How many, newest first.")
@verdict_option
@json_option
def list_failures(closed_too: bool, limit: int, with_verdict: bool, **given: Any) -> None:
    """List failures, newest first, and count them by reason.

    \b
    Example:
      pipeline failures list --connector acme --reason too_long
      pipeline failures list --connector acme --verdict
    """
    open_database()
    with transaction() as session:
        chosen = read_filter(session, given, None if closed_too else "open")
        found = failure_filter.page_of_failures(session, chosen, limit=limit)
        total = failure_filter.count_failures(session, chosen)
        groups = failure_filter.group_failures(session, chosen)
        foreseen = verdicts.verdicts_of(session, found) if with_verdict else {}
    shown = [described(each, foreseen.get(each.id)) for each in found]
    counts: Counter[tuple[str, str | None]] = Counter()
    for each in groups:
        counts[each.sample.reason, each.sample.field] += each.count
    show(shown, lambda: _print_list(shown, counts, total, given))


@group.command(name="groups")
@filter_options
@click.option("--all", "closed_too", is_flag=True, help="Closed ones too.")
@verdict_option
@json_option
def list_groups(closed_too: bool, with_verdict: bool, **given: Any) -> None:
    """List failures by cause, those first that hold most, with what to do.

    \b
    Example:
      pipeline failures groups --connector acme --verdict
    """
    open_database()
    found = []
    with transaction() as session:
        chosen = read_filter(session, given, None if closed_too else "open")
        for one in by_connector(session, chosen):
            for each in insight.groups_of(session, one):
                mine = {**given, "fingerprint": each.fingerprint}
                total = verdicts.sum_of(session, read_filter(session, mine), sample=200) if with_verdict else None
                found.append((each, total))
    document = [
        {**columns_of(each, *each.__slots__), **({"verdicts": dict(total.kinds)} if total else {})}
        for each, total in found
    ]

    def human() -> None:
        if not found:
            say(no_failure(given))
        for each, total in found:
            about = f" on {each.field}" if each.field else ""
            say(
                f"{each.count:,} {each.direction} {each.entity or each.stage} {each.reason}{about}  (--group {each.fingerprint})"
            )
            say(f"  {each.meaning} {each.advice}".rstrip())
            say(f"  first {moment(each.first_at)}, last {moment(each.last_at)} UTC")
            if total:
                say(f"  if replayed now: {in_words(total.kinds)}; about {total.tokens:,} tokens")

    show(document, human)


@group.command(name="show")
@click.argument("failure_id", metavar="FAILURE", type=int)
@click.option("--verdict/--no-verdict", "with_verdict", default=True, help="What replaying it now would come to.")
@json_option
def show_failure(failure_id: int, with_verdict: bool) -> None:
    """Show one failure whole: payload, HTTP exchange, traceback, what to do, and what replaying it would come to.

    \b
    Example:
      pipeline failures show 17
    """
    open_database()
    with transaction() as session:
        row = get_failure(session, failure_id)
        payload = rows.payload_of(row)
        verdict = verdicts.verdict_of(session, row) if with_verdict else None
        facts = {
            **described(row, verdict),
            "earlier": [each.id for each in failure_filter.same_subject(session, row) if each.id != row.id],
            "replays": [asdict(each) for each in insight.attempts_of(session, row)],
            "payload": payload.decode("utf-8", "replace") if payload is not None else None,
            "exchange": row.exchange,
            "traceback": row.traceback,
        }
    show(facts, lambda: _print_failure(facts, verdict))


@group.command()
@filter_options
@click.option("--why", required=True, help="Kept with the failure.")
@click.option("--dry-run", is_flag=True, help="Only say what would be discarded.")
@json_option
@audited("failures.discard")
def discard(why: str, dry_run: bool, **given: Any) -> None:
    """Close failures without replaying them.

    \b
    Example:
      pipeline failures discard --id 17 --why "deleted by sales"
    """
    require_choice(given)
    open_database()
    closed: list[int] = []
    with transaction() as session:
        chosen = read_filter(session, given)
        ids = failure_filter.open_ids(session, chosen)
        announce(chosen, ids, "discard", dry_run=dry_run)
        if not dry_run:
            for one in by_connector(session, chosen):
                mine = failure_filter.close_all(
                    session, failure_filter.open_ids(session, one), "discarded", by=operator_name(), why=why
                )
                closed += mine
                if mine:
                    told = ", ".join(f"{name} {value}" for name, value in one.words.items()) or "all that are open"
                    audit.note(
                        session, operator_name(), "failures.discard", told, connector_key=one.connector_key, why=why,
                        detail={"failures": len(mine)},
                    )  # fmt: skip
    if dry_run:
        show({"would_discard": ids}, lambda: say(f"Would discard {len(ids)}."))
        return
    show({"discarded": sorted(closed), "refused": {}}, lambda: say(f"{len(closed)} discarded."))


def described(failure: Failure, verdict: Verdict | None = None) -> dict[str, Any]:
    """A failure as programs read it; of a verdict the words and the names of fields, and no values."""
    reason = REASONS.get(failure.reason)
    facts = {
        **columns_of(failure, *COLUMNS),
        "meaning": reason.meaning if reason else "",
        "advice": reason.advice if reason else "",
    }
    if verdict is not None:
        facts["verdict"] = {
            "kind": str(verdict.kind),
            "detail": verdict.detail,
            "note": verdict.note,
            "fields": [each.field for each in verdict.changes],
        }
    return facts


def require_choice(given: dict[str, Any]) -> None:
    if is_empty(given):
        raise click.UsageError("say which: --id, --connector, --reason, --entity, --group or --since")


def announce(chosen: failure_filter.FailureFilter, ids: list[int], verb: str, *, dry_run: bool) -> None:
    """Say how many before anything happens. Raises: Failed when there is none."""
    if not ids:
        raise Failed("no open failure fits", "see: pipeline failures list --all")
    with transaction() as session:
        counts: Counter[str] = Counter()
        for each in failure_filter.group_failures(session, chosen):
            counts[each.sample.reason] += each.count
    if not dry_run:
        click.echo(
            f"{len(ids)} to {verb}: {', '.join(f'{n} {reason}' for reason, n in counts.most_common())}", err=True
        )


def in_words(kinds: dict[str, int] | Any) -> str:
    """`11 would change, 1 superseded`."""
    return ", ".join(f"{count:,} {verdicts.Kind(kind).words}" for kind, count in kinds.items())


def no_failure(given: dict[str, Any]) -> str:
    """What is said of an empty list; a filter may have left something out."""
    is_whole = is_empty({**given, "connector": None})
    return (
        "No failure: everything was carried over."
        if is_whole
        else "No failure is like that; without a filter, all are listed."
    )


def _print_list(
    shown: list[dict[str, Any]], counts: Counter[tuple[str, str | None]], total: int, given: dict[str, Any]
) -> None:
    if not shown:
        say(no_failure(given))
        return
    table(
        "",
        ("failures", "reason", "field", "what it means"),
        [(n, *key, insight.meaning_of(key[0])) for key, n in counts.most_common()],
    )
    say()
    columns = ["id", "since (UTC)", "what", "stage", "reason", "field", "state"]
    cells = [[f["id"], f["updated_at"], _what(f), f["stage"], f["reason"], f["field"], f["state"]] for f in shown]
    if "verdict" in shown[0]:
        columns.append("if replayed now")
        for facts, row in zip(shown, cells, strict=True):
            row.append(f"{verdicts.Kind(facts['verdict']['kind']).words}: {facts['verdict']['detail']}")
    table("", columns, cells)
    if total > len(shown):
        say(f"… and {total - len(shown):,} more; show them with --limit")


def _print_failure(facts: dict[str, Any], verdict: Verdict | None) -> None:
    say(f"Failure {facts['id']}, {facts['state']}: {_what(facts)}, {facts['direction']}, stage {facts['stage']}")
    say(f"  {facts['reason']}: {facts['meaning']} {facts['detail']}".rstrip())
    say(f"  Next: {facts['advice']}")
    say(f"  {facts['attempts']} attempts, first {moment(facts['created_at'])}, last {moment(facts['updated_at'])} UTC")
    say(f"  Celery task {facts['task_id'] or '-'}, run {facts['run_id'] or '-'}, batch {facts['batch_id'] or '-'}")
    if facts["closed_by"]:
        say(f"  closed by {facts['closed_by']}: {facts['closed_why']}")
    elif verdict is not None:
        say(f"  If replayed now, {verdict.kind.words}: {verdict.detail} {verdict.note}".rstrip())
        for each in verdict.changes:
            say(f"    {each.name}: {each.before!r} → {each.after!r}")
    for each in facts["replays"]:
        say(f"  replay {each['replay_id']}: {WORDS[each['state']]}. {each['detail'] or ''}".rstrip())
    if facts["earlier"]:
        say(f"  it failed before: {', '.join(map(str, facts['earlier']))}")
    for name in ("exchange", "traceback", "payload"):
        if facts[name]:
            say(f"\n{name}:\n{facts[name]}")


def _what(facts: dict[str, Any]) -> str:
    of = f"{facts['field']} of " if facts["kind"] == "field" else ""
    return (
        f"{of}{facts['entity']} {facts['record_id']}"
        if facts["kind"] in rows.OF_RECORDS
        else f"{facts['kind']} {facts['entity']}".strip()
    )
