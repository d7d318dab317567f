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
        next_step = "Correct them and try again; `force` accepts fields that Pipedrive does not have (yet)."
    return OperationError(
        HTTPStatus.BAD_REQUEST, "settings_refused", "These settings were refused.", next_step, mistakes
    )


BAD, CONFLICT = HTTPStatus.BAD_REQUEST, HTTPStatus.CONFLICT


def _settings(no: SettingsRefused) -> OperationError:
    return settings_refused(no.mistakes)


def _run_in_flight(no: RunInProgress) -> OperationError:
    return OperationError(CONFLICT, "run_in_progress", f"Run {no.run_id} is in flight.", "Wait for it, or cancel it.")


def _ask_first(no: AskFirst) -> OperationError:
    sentence = f"Nothing was done: {no}."
    return OperationError(CONFLICT, "needs_approval", sentence, f"Send number {no.number} to approve it.")


def _plan(no: PlanRefused) -> OperationError:
    return OperationError(CONFLICT, no.reason, f"Not applied: {no}.", "" if no.is_over else "Look at the plan.")


def _grown(no: MoreThanExpected) -> OperationError:
    sentence = f"There are more of them by now: {no}."
    return OperationError(CONFLICT, "more_than_expected", sentence, "Count again before you continue.")


def _nothing(_no: NothingToReplay) -> OperationError:
    return OperationError(CONFLICT, "nothing_fits", "No open failure matches.")


def _too_much(_no: TooManyEvents) -> OperationError:
    sentence = "This filter would scan too many events."
    return OperationError(BAD, "too_much", sentence, "Narrow it by a time range, a record or a run.")


def _too_many(_no: TooMany) -> OperationError:
    sentence = "Several files of this connector are being written already."
    return OperationError(HTTPStatus.TOO_MANY_REQUESTS, "too_many", sentence, "Wait until one of them is written.")


def _plainly(error: str, status: HTTPStatus = BAD) -> Callable[[Any], OperationError]:
    return lambda no: OperationError(status, error, f"{no}".strip())


REFUSALS: Final[Mapping[type[Exception], Callable[[Any], OperationError]]] = {
    AskFirst: _ask_first,
    MoreThanExpected: _grown,
    NotReplayable: _plainly("not_replayable", CONFLICT),
    NothingToReplay: _nothing,
    OperatorRefused: _plainly("refused"),
    PlanRefused: _plan,
    RunInProgress: _run_in_flight,
    SettingsRefused: _settings,
    SetupRefused: _plainly("refused"),
    TooMany: _too_many,
    TooManyEvents: _too_much,
}


def as_operation_error(error: Exception) -> OperationError | None:
    """Return how an error is shown; None for a defect, which no surface explains."""
    if isinstance(error, OperationError):
        return error
    shown = next((REFUSALS[kind] for kind in type(error).__mro__ if kind in REFUSALS), None)
    if shown is not None:
        return shown(error)
    if isinstance(error, PipelineError):
        reason = REASONS.get(error.reason)
        return OperationError(CONFLICT, error.reason, str(error), reason.advice if reason else "")
    return None
