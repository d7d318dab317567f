"""Errors of operations, and the errors of lower layers as errors of operations."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any, Final

from db.event_log import TooManyEvents
from pipeline.accounts.operators import OperatorRefused
from pipeline.domain.reasons import REASONS
from pipeline.domain.settings import SettingsRefused
from pipeline.errors import PipelineError
from pipeline.jobs.log_exports import TooMany
from pipeline.jobs.plans.apply import PlanRefused
from pipeline.jobs.replays.start import MoreThanExpected, NothingToReplay, NotReplayable
from pipeline.sync.connectors.setup import SetupRefused
from pipeline.sync.runs.backfill import AskFirst
from pipeline.sync.runs.runs import RunInProgress


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


class ConnectorNotFound(OperationError):
    """No connector that the caller may see has this id or name."""

    def __init__(self, message: str, next_step: str) -> None:
        super().__init__(HTTPStatus.NOT_FOUND, "not_found", message, next_step)


def not_found(message: str, next_step: str = "") -> OperationError:
    """Return the error for an object that does not exist or belongs to another connector; it does not reveal which."""
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


def settings_refused(mistakes: list[str]) -> OperationError:
    """Return the error for settings that are not valid, with every mistake."""
    next_step = "Correct them and try again."
    if any("Pipedrive has no" in each for each in mistakes):
        next_step = "Correct them and try again; `--force` (`force` in the API) accepts fields that Pipedrive does not have (yet)."
    return OperationError(
        HTTPStatus.BAD_REQUEST, "settings_refused", "These settings were refused.", next_step, mistakes
    )


REFUSALS: Final[Mapping[type[Exception], Callable[[Any], OperationError]]] = {
    AskFirst: lambda error: conflict(
        "needs_approval", f"Nothing was done: {error}.", f"Send number {error.number} to approve it."
    ),
    MoreThanExpected: lambda error: conflict(
        "more_than_expected", f"There are more of them now: {error}.", "Count again before you continue."
    ),
    NotReplayable: lambda error: conflict("not_replayable", str(error).strip()),
    NothingToReplay: lambda _error: conflict("nothing_fits", "No open failure matches."),
    OperatorRefused: lambda error: invalid("refused", str(error).strip()),
    PlanRefused: lambda error: conflict(
        error.reason, f"Not applied: {error}.", "" if error.is_over else "Look at the plan."
    ),
    RunInProgress: lambda error: conflict(
        "run_in_progress", f"Run {error.run_id} is in flight.", "Wait for it, or cancel it."
    ),
    SettingsRefused: lambda error: settings_refused(error.mistakes),
    SetupRefused: lambda error: invalid("refused", str(error).strip()),
    TooMany: lambda _error: OperationError(
        HTTPStatus.TOO_MANY_REQUESTS,
        "too_many",
        "Several files of this connector are being written already.",
        "Wait until one of them is written.",
    ),
    TooManyEvents: lambda _error: invalid(
        "too_much", "This filter would scan too many events.", "Narrow it by a time range, a record or a run."
    ),
}
"""Error of a lower layer → the error that all surfaces show."""


def as_operation_error(error: Exception) -> OperationError | None:
    """Return how an error is shown; None for a defect, which no surface explains."""
    if isinstance(error, OperationError):
        return error
    shown = next((REFUSALS[kind] for kind in type(error).__mro__ if kind in REFUSALS), None)
    if shown is not None:
        return shown(error)
    if isinstance(error, PipelineError):
        reason = REASONS.get(error.reason)
        return conflict(error.reason, str(error), reason.advice if reason else "")
    return None
