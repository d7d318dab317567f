"""Text output of the commands about settings, fields and mappings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from pipeline.cli.calling import Caller
from pipeline.cli.presentation import Presentation
from pipeline.cli.showing import say, table
from pipeline.domain.kinds import Entity
from pipeline.insight.settings_text import pretty
from pipeline.operations import fields, settings, settings_preview
from pipeline.operations.fields import FieldsAnswer, SegmentsAnswer, SuggestionsAnswer
from pipeline.operations.models import ConnectorRequest
from pipeline.operations.registry import Operation
from pipeline.operations.settings import (
    DifferenceAnswer,
    FollowingRunShape,
    RebasedAnswer,
    ReviewAnswer,
    RollBack,
    SavedAnswer,
    SettingsShape,
    ShowSettings,
    VersionsAnswer,
)
from pipeline.operations.settings_preview import MappingTriedAnswer, ScheduleTriedAnswer

BASE: Final = frozenset({"base_version"})


def _with_defaults(_caller: Caller, given: dict[str, Any]) -> None:
    given["defaults"] = True


def _on_the_version_in_force(caller: Caller, given: dict[str, Any]) -> None:
    """Set `base_version` to the version in force, if it was not given."""
    if "base_version" not in given:
        now = caller.call(settings.show_settings, ShowSettings(connector=given["connector"]))
        given["base_version"] = now.version


def _document(_request: ShowSettings, answer: SettingsShape) -> None:
    say(pretty(answer.document))


def _rebased(_request: ConnectorRequest, answer: RebasedAnswer) -> None:
    say(pretty(answer.document))


def _versions(_request: ConnectorRequest, answer: VersionsAnswer) -> None:
    lines = [(each.version, each.created_at, each.author, ", ".join(each.changed)) for each in answer.versions]
    table("", ("version", "since (UTC)", "by", "changed"), lines)


def _difference(_request: ConnectorRequest, answer: DifferenceAnswer) -> None:
    words = [each.sentence for each in answer.changes]
    say("\n".join([*words, "", answer.diff]) if answer.diff else "Nothing differs.")


def _review(request: ConnectorRequest, answer: ReviewAnswer) -> None:
    words = [each.sentence for each in answer.changes]
    say("\n".join([*words, "", answer.diff]) if answer.diff else f"Nothing differs from version {answer.base}.")
    for consequence in answer.consequences:
        say(consequence.sentence)
    for each in answer.unknown:
        say(f"{each.words}. It was already mapped; the other fields work.")
    if answer.changes:
        say(f"Nothing is saved. Next: pipeline settings set {request.connector} FILE")


def _saved(request: ConnectorRequest, answer: SavedAnswer) -> None:
    if not answer.changed:
        say(f"Nothing differs from version {answer.version}, which stays in force.")
        return
    back = f", with the content of version {request.version}" if isinstance(request, RollBack) else ""
    say(f"Version {answer.version} is in force{back}.")
    for each in answer.changes:
        say(each.sentence)
    for run in answer.runs:
        say(_following(request.connector, run))


def _following(connector: str, run: FollowingRunShape) -> str:
    what = f"{run.records:,} {Entity(run.entity).plural.capitalize()}"
    if run.state == "held":
        return f"That touches {what}, so nothing begins before: pipeline runs confirm {connector} {run.run_id}"
    if run.kind == "backfill":
        how = "get what is new from what is stored, for no tokens"
    else:
        how = f"are fetched again, for about {run.tokens:,} tokens: a field was added that Pipedrive gives on request only"
    return f"{what} {how}. Follow it: pipeline runs show {connector} {run.run_id}"


def _tried(_request: ConnectorRequest, answer: MappingTriedAnswer) -> None:
    if answer.sample is not None:
        say(f"On {answer.sample.entity} {answer.sample.pipedrive_id or answer.sample.hull_id}, {answer.sample.name}:")
    lines = []
    for each in answer.rows:
        found = each.conversion
        outcome = "; ".join(each.mistakes) or (found.words if found else "")
        field = each.words.field if each.words else ""
        lines.append((each.position, field, *((found.before, found.after) if found else ("", "")), outcome))
    table("", ("row", "field", "before", "after", "what becomes of it"), lines, empty="Nothing is mapped.")


def _schedule(_request: ConnectorRequest, answer: ScheduleTriedAnswer) -> None:
    say(answer.words or "It never comes due.")
    for each in answer.next_at:
        say(f"  {each:%Y-%m-%d %H:%M} UTC")


def _fields(_request: ConnectorRequest, answer: FieldsAnswer) -> None:
    lines = [(each.code, each.name, each.type, each.is_custom, each.is_writable) for each in answer.fields]
    table("", ("code", "name", "type", "custom", "writable"), lines, empty="No fields were read yet.")


def _segments(_request: ConnectorRequest, answer: SegmentsAnswer) -> None:
    lines = [("users", each.id, each.name) for each in answer.users]
    lines += [("accounts", each.id, each.name) for each in answer.accounts]
    table("", ("of", "id", "name"), lines, empty=answer.trouble or "Hull has no segments.")


def _suggestions(_request: ConnectorRequest, answer: SuggestionsAnswer) -> None:
    columns = ("hull", "service", "field", "type", "what it does")
    for name, offered in answer.suggestions.items():
        lines = [(each.hull, each.service, each.field, each.type, each.does) for each in offered]
        table(name, columns, lines, empty=f"{name}: nothing to suggest.")


PRESENTATIONS: Final[Mapping[Operation[Any, Any], Presentation]] = {
    fields.list_fields: Presentation(show=_fields),
    fields.list_segments: Presentation(show=_segments),
    fields.suggest_mappings: Presentation(show=_suggestions),
    settings.compare_settings: Presentation(show=_difference),
    settings.list_settings: Presentation(show=_versions),
    settings.put_settings: Presentation(show=_saved, ask=_on_the_version_in_force, asks=BASE),
    settings.rebase_settings: Presentation(show=_rebased),
    settings.review_settings: Presentation(show=_review, ask=_on_the_version_in_force, asks=BASE),
    settings.roll_back_settings: Presentation(show=_saved),
    settings.show_settings: Presentation(show=_document, ask=_with_defaults),
    settings_preview.show_mapping: Presentation(show=_tried),
    settings_preview.try_mapping: Presentation(show=_tried),
    settings_preview.try_schedule: Presentation(show=_schedule),
}
