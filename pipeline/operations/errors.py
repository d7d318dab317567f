"""Errors of operations, as every surface shows them."""

from __future__ import annotations

from http import HTTPStatus


class OperationError(Exception):
    """An operation was refused or is not possible.

    status     the HTTP status that `/api/v1` answers; the command line derives its exit code from it
    code       stable, for scripts
    message    what happened, for a person
    next_step  what to do now; empty if there is nothing to do
    mistakes   each with its place, where there may be several
    """

    def __init__(
        self,
        status: HTTPStatus,
        code: str,
        message: str,
        next_step: str = "",
        mistakes: list[str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.code, self.message, self.next_step = status, code, message, next_step
        self.mistakes = mistakes or []


def not_found(message: str, next_step: str = "") -> OperationError:
    """Return the error for something that does not exist or belongs to another connector; callers cannot tell which."""
    return OperationError(HTTPStatus.NOT_FOUND, "not_found", message, next_step)


def forbidden(code: str, message: str, next_step: str = "") -> OperationError:
    """Return the error for an act that this operator may not do."""
    return OperationError(HTTPStatus.FORBIDDEN, code, message, next_step)


def invalid(code: str, message: str, next_step: str = "") -> OperationError:
    """Return the error for an invalid request."""
    return OperationError(HTTPStatus.BAD_REQUEST, code, message, next_step)


def conflict(code: str, message: str, next_step: str = "") -> OperationError:
    """Return the error for an act that is not possible in the current state."""
    return OperationError(HTTPStatus.CONFLICT, code, message, next_step)


def impossible(message: str, next_step: str = "") -> OperationError:
    """Return the error for an act that is not possible now."""
    return conflict("impossible", message, next_step)
