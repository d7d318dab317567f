"""The declaration of an operation: request, answer, role, audit action, REST route and command, each once.

An operation is a function of a `Call` and a request model that returns an answer model. Its annotations are its models, its
docstring is its documentation. Every surface calls the declared operation: the call checks the role, finds the connector, runs
the function, and fails if an act wrote no audit entry.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Generic, Literal, TypeVar, get_type_hints

from pydantic import BaseModel

from pipeline.domain.kinds import Role
from pipeline.operations.call import Call
from pipeline.operations.errors import as_operation_error, forbidden

R = TypeVar("R", bound=BaseModel)
A = TypeVar("A")
EXAMPLES: Final = {"connector": "acme", "entity": "person", "id": "17"}
"""Argument of a command → its value in the example of the command's help."""
CHANGING: Final = frozenset({"POST", "PUT", "PATCH", "DELETE"})


class DeclarationError(Exception):
    """The declaration of an operation is incomplete; raised when its module is imported."""


@dataclass(frozen=True, slots=True)
class Download:
    """The answer of an operation that returns a file; its `chunks` are read while it is sent."""

    name: str
    content_type: str
    chunks: Any


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Operation(Generic[R, A]):
    """What a person or a script may do or request.

    method, path   of `/api/v1`; the names in `<…>` are fields of the request. Both empty: not over HTTP
    query          fields of the request that are sent in the query string although the method has a body
    audit_action   None if the operation only reads or computes
    command        words of the command line; those in capitals are arguments, named after fields. Empty: no command
    example        arguments and options of the command's example; by default `EXAMPLES` of its arguments
    content_type   of the file that it returns, for one that returns a `Download`
    """

    run: Callable[[Call, R], A]
    request: type[R]
    answer: type[A]
    role: Role
    method: str
    path: str
    query: frozenset[str]
    audit_action: str | None
    command: str
    example: str
    content_type: str

    @property
    def name(self) -> str:
        """The operation's name, as the API description and logs show it."""
        return self.run.__name__

    @property
    def subject(self) -> str:
        """Return the docstring of the module that declares it."""
        return (sys.modules[self.run.__module__].__doc__ or "").strip()

    @property
    def documentation(self) -> str:
        return inspect.getdoc(self.run) or ""

    @property
    def words(self) -> list[str]:
        """Return the words of the command before its arguments."""
        return [word for word in self.command.split() if not word.strip("[]").isupper()]

    @property
    def arguments(self) -> dict[str, bool]:
        """Return the fields of the request that are arguments of the command, and whether each is required."""
        return _arguments_of(self.command)

    @property
    def path_fields(self) -> list[str]:
        """Return the fields of the request that are part of the path, in their order."""
        return [part.strip("<>") for part in self.path.split("/") if part.startswith("<")]

    def part_of(self, field: str) -> Literal["path", "query", "body"]:
        """Return the part of an HTTP request that carries a field of the request model."""
        if field in self.path_fields:
            return "path"
        return "body" if self.method in CHANGING and field not in self.query else "query"

    def __call__(self, call: Call, request: R) -> A:
        """Run it. Raises OperationError."""
        if not Role(call.caller.role).may(self.role):
            raise forbidden("role", f"This needs the role {self.role}; you are {call.caller.role}.", "Ask an admin.")
        begun = call.begin(getattr(request, "connector", None), self.audit_action)
        try:
            answer = self.run(begun, request)
        except Exception as error:
            shown = as_operation_error(error)
            if shown is None or shown is error:
                raise
            raise shown from error
        if self.audit_action is not None and not begun.is_audited:
            raise LookupError(f"{self.name} wrote no audit entry")
        return answer


def operation(
    route: str,
    *,
    role: Role,
    audit_action: str | None = None,
    changes: bool = True,
    query: tuple[str, ...] = (),
    command: str = "",
    example: str = "",
    content_type: str = "",
) -> Callable[[Callable[[Call, R], A]], Operation[R, A]]:
    """Declare a function as an operation.

    route    `POST /connectors/<connector>/pause`; empty for one that has no route
    changes  False for a POST that only computes
    Raises DeclarationError if the docstring is missing, the route or command names an unknown field of the request, or an
    operation that changes something has no audit action.
    """

    def declare(run: Callable[[Call, R], A]) -> Operation[R, A]:
        hints = get_type_hints(run)
        method, _, path = route.partition(" ")
        request = next(hint for name, hint in hints.items() if hint is not Call and name != "return")
        declared = Operation(
            run=run,
            request=request,
            answer=hints["return"],
            role=role,
            method=method,
            path=path,
            query=frozenset(query),
            audit_action=audit_action,
            command=command,
            example=example or " ".join(EXAMPLES[each] for each in _arguments_of(command) if each in EXAMPLES),
            content_type=content_type,
        )
        _require_whole(declared, changes=changes)
        return declared

    return declare


def _arguments_of(command: str) -> dict[str, bool]:
    named = [word for word in command.split() if word.strip("[]").isupper()]
    return {word.strip("[]").lower(): not word.startswith("[") for word in named}


def _require_whole(declared: Operation[Any, Any], *, changes: bool) -> None:
    name, fields = declared.name, set(declared.request.model_fields)
    if not declared.documentation:
        raise DeclarationError(f"{name} has no docstring")
    if unknown := {*declared.path_fields, *declared.query, *declared.arguments} - fields:
        raise DeclarationError(f"{name} names fields that its request does not have: {', '.join(sorted(unknown))}")
    does_change = changes and declared.method in CHANGING
    if declared.method and does_change != (declared.audit_action is not None):
        raise DeclarationError(f"{name}: an operation that changes something has an audit action, and no other has")
