"""Errors of the lower layers as every surface shows them: one `OperationError` for each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any, Final

from db.event_log import TooMuch
from pipeline.accounts.operators import OperatorRefused
from pipeline.domain.reasons import REASONS
from pipeline.domain.settings import SettingsRefused
from pipeline.errors import PipelineError
from pipeline.insight.settings_editing import Mistake, SettingsMistaken, SettingsMoved
from pipeline.jobs.log_exports import TooMany
from pipeline.jobs.plans.apply import PlanRefused
from pipeline.jobs.replays.start import MoreThanExpected, NothingToReplay, NotReplayable
from pipeline.operations.errors import OperationError
from pipeline.sync.connectors.setup import SetupRefused
from pipeline.sync.runs.backfill import AskFirst
from pipeline.sync.runs.runs import RunInProgress

BAD, CONFLICT = HTTPStatus.BAD_REQUEST, HTTPStatus.CONFLICT


def _settings(no: SettingsRefused) -> OperationError:
    return _refused_settings(no.mistakes)


def _mistaken(no: SettingsMistaken) -> OperationError:
    return _refused_settings([_placed(each) for each in no.mistakes])


def _refused_settings(mistakes: list[str]) -> OperationError:
    next_step = "Correct them and try again."
    if any("Pipedrive has no" in each for each in mistakes):
        next_step = "Correct them and try again; `force` accepts fields that Pipedrive does not have (yet)."
    return OperationError(BAD, "settings_refused", "These settings were refused.", next_step, mistakes=mistakes)


def _placed(mistake: Mistake) -> str:
    place = mistake.setting if mistake.position is None else f"{mistake.setting}.{mistake.position}"
    return f"{place}: {mistake.words}" if place else mistake.words


def _moved(no: SettingsMoved) -> OperationError:
    sentence = f"Version {no.version}, saved by {no.author}, is in force now."
    changes = [each.sentence for each in no.changes]
    return OperationError(CONFLICT, "settings_moved", sentence, "Review it, then save again.", mistakes=changes)


def _run_in_flight(no: RunInProgress) -> OperationError:
    return OperationError(CONFLICT, "run_in_progress", f"Run {no.run_id} is in flight.", "Wait for it, or cancel it.")


def _ask_first(no: AskFirst) -> OperationError:
    sentence = f"Nothing was done: {no}."
    return OperationError(CONFLICT, "needs_a_yes", sentence, f"Send number {no.number} to approve it.")


def _plan(no: PlanRefused) -> OperationError:
    return OperationError(CONFLICT, no.reason, f"Not applied: {no}.", "" if no.is_over else "Look at the plan.")


def _grown(no: MoreThanExpected) -> OperationError:
    sentence = f"There are more of them by now: {no}."
    return OperationError(CONFLICT, "more_than_expected", sentence, "Count again before you continue.")


def _nothing(_no: NothingToReplay) -> OperationError:
    return OperationError(CONFLICT, "nothing_fits", "No open failure matches.")


def _too_much(_no: TooMuch) -> OperationError:
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
    SettingsMistaken: _mistaken,
    SettingsMoved: _moved,
    SettingsRefused: _settings,
    SetupRefused: _plainly("refused"),
    TooMany: _too_many,
    TooMuch: _too_much,
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
