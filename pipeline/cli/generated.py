"""The commands of operations, generated from their declarations.

Words in capitals of `Operation.command` are arguments; every other field of the request is an option. `--json` prints the answer
model. `--url URL --key-file FILE` runs the same command against a running installation over HTTP.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType, NoneType, UnionType
from typing import Annotated, Any, Final, Literal, Union, get_args, get_origin

import click
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from pipeline.cli.calling import Caller, LocalCaller, RemoteCaller
from pipeline.cli.output import json_option, wants_json, yes_option
from pipeline.cli.presentation import PLAIN, Presentation
from pipeline.cli.rendering import PRESENTATIONS
from pipeline.operations.catalogue import all_operations
from pipeline.operations.models import FromFile
from pipeline.operations.registry import Download, Operation

READABLE_FILE: Final = click.Path(exists=True, dir_okay=False, allow_dash=True, path_type=Path)
GROUPS: Final[Mapping[str, str]] = {
    "audit": "The audit log: what operators and scripts did, and why.",
    "deliveries": "Webhooks and notifications as they were received.",
    "fields": "Pipedrive's fields, by name and type.",
    "runs": "Runs: fetches and backfills; how far each is; confirm one that waits, and cancel one.",
    "segments": "Hull's segments, by name.",
}
"""Groups that hold a part of a subject, or parts of several; every other group is described by the docstring of its subject."""
SINGULAR: Final = {"--entities": "--entity"}
"""Name of a list's option → its singular, where it is not just without the last letter."""
DECLARED: Final = "declared_operation"
"""Attribute of a generated command's callback: its operation."""


def add_to(program: click.Group) -> None:
    """Add the command of every operation to the program, in the groups that its words name."""
    for declared in all_operations():
        if declared.command:
            *groups, name = declared.words
            _group(program, groups, declared).add_command(command_of(declared, name))


def command_of(
    declared: Operation[Any, Any], name: str, *, fixed: Mapping[str, str] = MappingProxyType({}), example: str = ""
) -> click.Command:
    """Return the command of an operation; `fixed` are fields that its name implies, `example` is a complete command line."""
    presentation = PRESENTATIONS.get(declared, PLAIN)
    if not isinstance(presentation, Presentation):
        presentation = Presentation(show=presentation)

    @json_option
    def run(
        url: str | None = None,
        key_file: Path | None = None,
        output: Path | None = None,
        wait: bool = False,
        follow: bool = False,
        **given: Any,
    ) -> None:
        fields = _fields(declared, given) | dict(fixed)
        try:
            caller = _caller(url, key_file)
            presentation.ask(caller, fields)
            request = declared.request.model_validate(fields)
        except ValidationError as error:
            raise click.UsageError("; ".join(_mistakes(error))) from None
        if follow and presentation.stream is not None:
            with suppress(KeyboardInterrupt):
                presentation.stream(caller, request)
            return
        answer = caller.call(declared, request)
        if presentation.follow is not None:
            answer = presentation.follow(caller, request, answer, wait=wait)
        if isinstance(answer, Download):
            _save(answer, output)
            return
        if wants_json():
            click.echo(json.dumps(answer.model_dump(mode="json"), indent=2, ensure_ascii=False))
        else:
            presentation.show(request, answer)
        if presentation.failed(answer):
            click.get_current_context().exit(1)

    setattr(run, DECLARED, declared)
    example = example or " ".join(["pipeline", *declared.words, declared.example]).rstrip()
    params = [
        *_arguments(declared),
        *_options(declared, presentation),
        *_remote_options(declared),
        *getattr(run, "__click_params__", []),
    ]
    return click.Command(
        name,
        callback=run,
        help=f"{declared.documentation}\n\n\b\nExample:\n  {example}",
        params=[each for each in params if each.name not in fixed],
    )


def _group(program: click.Group, names: list[str], declared: Operation[Any, Any]) -> click.Group:
    group = program
    for name in names:
        below = group.commands.get(name)
        if not isinstance(below, click.Group):
            below = click.Group(name, help=GROUPS.get(name) or declared.subject.partition("\n\n")[0])
            group.add_command(below)
        group = below
    return group


def _arguments(declared: Operation[Any, Any]) -> list[click.Parameter]:
    fields = declared.request.model_fields
    found: list[click.Parameter] = []
    for name, is_required in declared.arguments.items():
        shown = f"{name.upper()}_FILE" if _is_from_file(fields[name]) else name.upper()
        metavar = shown if is_required else f"[{shown}]"
        found.append(click.Argument([name], metavar=metavar, required=is_required, type=_type(fields[name])))
    return found


def _options(declared: Operation[Any, Any], presentation: Presentation) -> list[click.Parameter]:
    options = [
        option
        for name, field in declared.request.model_fields.items()
        if name not in declared.arguments
        for option in _options_of(name, field, is_required=field.is_required() and name not in presentation.asks)
    ]
    if presentation.yes:
        options.append(yes_option(presentation.yes))
    if presentation.stream is not None:
        options.append(click.Option(["--follow"], is_flag=True, help="Print new entries until Ctrl-C."))
    if presentation.follow is not None:
        options.append(click.Option(["--wait"], is_flag=True, help="Wait until it has ended."))
    return options


def _options_of(name: str, field: FieldInfo, *, is_required: bool) -> list[click.Parameter]:
    """Return the option of a field, or the options of a nested model's fields."""
    kind = _kind(field.annotation)
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return [
            option
            for inner, each in kind.model_fields.items()
            for option in _options_of(inner, each, is_required=is_required and each.is_required())
        ]
    flag = f"--{name.replace('_', '-')}"
    settings: dict[str, Any] = {"help": _description(field), "required": is_required}
    if kind is not bool and isinstance(field.default, int | float | str):
        settings["help"] = f"{settings['help']}  [default: {field.default}]"
    if _is_from_file(field):
        return [click.Option([f"{flag}-file", name], type=READABLE_FILE, metavar="FILE", **settings)]
    if kind is bool:
        both = f"{flag}/--no-{name.replace('_', '-')}" if field.default is True else flag
        return [click.Option([both, name], is_flag=True, default=None, help=_description(field))]
    is_list = get_origin(kind) is list
    flags = [flag, SINGULAR.get(flag, flag.removesuffix("s"))] if is_list else [flag]
    return [click.Option([*flags, name], type=_type(field), multiple=is_list, **settings)]


def _remote_options(declared: Operation[Any, Any]) -> list[click.Parameter]:
    options: list[click.Parameter] = []
    if declared.answer is Download:
        help_text = "File to write; by default the name in the answer."
        options.append(click.Option(["--output"], type=click.Path(path_type=Path, allow_dash=True), help=help_text))
    if declared.method:
        options += [
            click.Option(["--url"], metavar="URL", help="Run it in the installation at this address, over HTTP."),
            click.Option(
                ["--key-file"],
                type=READABLE_FILE,
                metavar="FILE",
                help="File that contains an API key, for --url; - reads standard input.",
            ),
        ]
    return options


def _fields(declared: Operation[Any, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of the request without those of omitted options, so that their defaults apply."""
    fields: dict[str, Any] = {}
    for name, field in declared.request.model_fields.items():
        kind = _kind(field.annotation)
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            inner = {
                each: _read(kind.model_fields[each], given[each]) for each in kind.model_fields if _has(given, each)
            }
            if inner or field.is_required():
                fields[name] = inner
        elif _has(given, name):
            fields[name] = _read(field, given[name])
    return fields


def _has(given: Mapping[str, Any], name: str) -> bool:
    return given.get(name) not in (None, ())


def _read(field: FieldInfo, value: Any) -> Any:
    """Return the value of an option, or the content of its file."""
    if not isinstance(value, Path):
        return list(value) if isinstance(value, tuple) else value
    try:
        text = sys.stdin.read() if str(value) == "-" else value.read_text(encoding="utf-8")
        if _kind(field.annotation) is str:
            return text.rstrip("\r\n")
        return json.loads(text, object_pairs_hook=_require_unique)
    except ValueError as error:
        raise click.UsageError(f"{value} is not readable: {error}") from None


def _require_unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return the object; refuse a duplicate field, because JSON would silently use the last one."""
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"the field {next(each for each in names if names.count(each) > 1)!r} is given twice")
    return found


def _caller(url: str | None, key_file: Path | None) -> Caller:
    if url is None and key_file is None:
        return LocalCaller()
    if url is None or key_file is None:
        raise click.UsageError("give --url and --key-file together")
    return RemoteCaller(url, key_file)


def _kind(annotation: Any) -> Any:
    """Return the type of a field without None and restrictions."""
    if get_origin(annotation) is Annotated:
        return _kind(get_args(annotation)[0])
    if get_origin(annotation) in (Union, UnionType):
        return _kind(next(each for each in get_args(annotation) if each is not NoneType))
    return annotation


def _type(field: FieldInfo) -> Any:
    """Return click's type of a field; the request model validates the value."""
    if _is_from_file(field):
        return READABLE_FILE
    kind = _kind(field.annotation)
    if get_origin(kind) is list:
        kind = _kind(get_args(kind)[0])
    if get_origin(kind) is Literal:
        return click.Choice([str(each) for each in get_args(kind)])
    return {int: click.INT, float: click.FLOAT}.get(kind, click.STRING)


def _description(field: FieldInfo) -> str | None:
    """Return the description of a field, or of its type without None."""
    inner = [each.description for each in _inner_metadata(field) if isinstance(each, FieldInfo)]
    return field.description or next(filter(None, inner), None)


def _inner_metadata(field: FieldInfo) -> list[Any]:
    """Return the restrictions and descriptions of the type of an optional field."""
    return [each for kind in get_args(field.annotation) for each in getattr(kind, "__metadata__", ())]


def _is_from_file(field: FieldInfo) -> bool:
    kind = _kind(field.annotation)
    if get_origin(kind) is list:
        kind = _kind(get_args(kind)[0])
    is_marked = any(isinstance(each, FromFile) for each in [*field.metadata, *_inner_metadata(field)])
    return is_marked or get_origin(kind) is dict or kind is dict


def _mistakes(error: ValidationError) -> list[str]:
    """Return each mistake with the name of its field, without the value, which may be a secret."""
    return [
        f"{'.'.join(str(part) for part in each['loc'])}: {each['msg']}".strip(": ")
        for each in error.errors(include_input=False)
    ]


def _save(found: Download, output: Path | None) -> None:
    """Write a downloaded file and print its path."""
    if str(output) == "-":
        for chunk in found.chunks:
            click.echo(chunk, nl=False)
        return
    path = output or Path(found.name)
    with path.open("wb") as file:
        for chunk in found.chunks:
            file.write(chunk.encode() if isinstance(chunk, str) else chunk)
    click.echo(f"Written: {path}")
