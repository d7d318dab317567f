"""What the rooms below refuse, as scripts are told of it: one answer for each way of saying no."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any, Final

from pipeline.accounts.operators import OperatorRefused
from pipeline.domain.settings import SettingsRefused
from pipeline.insight.acts import Impossible
from pipeline.insight.log import TooMuch
from pipeline.insight.payloads import PayloadMistake
from pipeline.insight.settings_editing import Mistake, SettingsMistaken, SettingsMoved
from pipeline.jobs.log_exports import TooMany
from pipeline.jobs.plans.apply import PlanRefused
from pipeline.jobs.replays.requeue import NotReplayable
from pipeline.jobs.replays.start import MoreThanExpected, NothingToReplay
from pipeline.sync.connectors.setup import SetupRefused
from pipeline.sync.runs.approval import AskFirst
from pipeline.sync.runs.runs import RunInProgress
from pipeline.web.api.door import Nay

BAD, CONFLICT = HTTPStatus.BAD_REQUEST, HTTPStatus.CONFLICT


def _impossible(no: Impossible) -> Nay:
    return Nay(CONFLICT, "impossible", no.sentence, no.next_step)


def _settings(no: SettingsRefused) -> Nay:
    return Nay(BAD, "settings_refused", "These settings were refused.", mistakes=no.mistakes)


def _mistaken(no: SettingsMistaken) -> Nay:
    return Nay(
        BAD, "settings_refused", "These settings were refused.", mistakes=[_placed(each) for each in no.mistakes]
    )


def _placed(mistake: Mistake) -> str:
    place = mistake.setting if mistake.position is None else f"{mistake.setting}.{mistake.position}"
    return f"{place}: {mistake.words}" if place else mistake.words


def _moved(no: SettingsMoved) -> Nay:
    sentence = f"Version {no.version} is in force by now, saved by {no.author}."
    changes = [each.sentence for each in no.changes]
    return Nay(CONFLICT, "settings_moved", sentence, "Read it, then put again.", mistakes=changes)


def _under_way(no: RunInProgress) -> Nay:
    return Nay(CONFLICT, "run_in_progress", f"Run {no.run_id} is under way.", "Wait for it, or cancel it.")


def _ask_first(no: AskFirst) -> Nay:
    sentence = f"Nothing was done: {no}."
    return Nay(CONFLICT, "needs_a_yes", sentence, f"Send number {no.number} to say yes to that.")


def _plan(no: PlanRefused) -> Nay:
    return Nay(CONFLICT, no.reason, f"Not applied: {no}.", "" if no.is_over else "Look at the plan.")


def _grown(no: MoreThanExpected) -> Nay:
    sentence = f"Meanwhile there are more of them: {no}."
    return Nay(CONFLICT, "more_than_expected", sentence, "Count again before you go on.")


def _nothing(_no: NothingToReplay) -> Nay:
    return Nay(CONFLICT, "nothing_fits", "No open failure fits.")


def _too_much(_no: TooMuch) -> Nay:
    sentence = "This filter would look through too many events."
    return Nay(BAD, "too_much", sentence, "Narrow it by a time range, a record or a run.")


def _too_many(_no: TooMany) -> Nay:
    sentence = "Several files of this connector are being written already."
    return Nay(HTTPStatus.TOO_MANY_REQUESTS, "too_many", sentence, "Wait until one of them is written.")


def _plainly(error: str, status: HTTPStatus = BAD) -> Callable[[Any], Nay]:
    return lambda no: Nay(status, error, f"{no}".strip())


REFUSALS: Final[Mapping[type[Exception], Callable[[Any], Nay]]] = {
    AskFirst: _ask_first,
    Impossible: _impossible,
    MoreThanExpected: _grown,
    NotReplayable: _plainly("not_replayable", CONFLICT),
    NothingToReplay: _nothing,
    OperatorRefused: _plainly("refused"),
    PayloadMistake: _plainly("payload_refused"),
    PlanRefused: _plan,
    RunInProgress: _under_way,
    SettingsMistaken: _mistaken,
    SettingsMoved: _moved,
    SettingsRefused: _settings,
    SetupRefused: _plainly("refused"),
    TooMany: _too_many,
    TooMuch: _too_much,
}
