"""An access token as headers: renewed in time, and after a 401."""

from __future__ import annotations

import pytest

from pipeline.clients.oauth import BearerAuth, Token
from pipeline.errors import ConfigurationError, PipelineError, Retryable


def token(text: str, left_s: float = 3600.0, life_s: float = 3600.0) -> Token:
    return Token(text=text, left_s=left_s, life_s=life_s)


class Renewals:
    """Hands out what it was given, one after the other; remembers what was refused."""

    def __init__(self, *answers: Token | PipelineError) -> None:
        self.answers = list(answers)
        self.refused: list[str | None] = []

    def __call__(self, refused: str | None) -> Token:
        self.refused.append(refused)
        answer = self.answers.pop(0)
        if isinstance(answer, PipelineError):
            raise answer
        return answer


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def shown(auth: BearerAuth) -> str:
    return auth.headers()["Authorization"]


@pytest.mark.parametrize(
    ("life_s", "left_s", "due_in_s"),
    [(3600, 3600, 3300), (3600, 300, 0), (3600, 10, -290), (100, 100, 80), (100, 20, 0), (0, 0, 0)],
)
def test_is_due_five_minutes_or_a_fifth_of_its_life_before_the_end(
    life_s: float, left_s: float, due_in_s: float
) -> None:
    assert token("a", left_s, life_s).due_in_s == due_in_s


def test_is_renewed_when_it_is_due_and_not_before() -> None:
    clock, renew = Clock(), Renewals(token("new"))
    auth = BearerAuth(token("old"), renew, clock=clock)

    clock.now += 3299
    assert (shown(auth), renew.refused) == ("Bearer old", [])
    clock.now += 1
    assert (shown(auth), renew.refused) == ("Bearer new", [None])
    assert (shown(auth), renew.refused) == ("Bearer new", [None])


def test_is_renewed_after_a_refusal() -> None:
    renew = Renewals(token("new"))
    auth = BearerAuth(token("old"), renew, clock=Clock())

    assert auth.after_refusal(auth.headers()) == {"Authorization": "Bearer new"}
    assert renew.refused == ["old"]
    assert shown(auth) == "Bearer new"


def test_a_token_that_is_still_good_is_used_while_it_cannot_be_renewed() -> None:
    clock, renew = Clock(), Renewals(Retryable("remote_unavailable"), token("new"))
    auth = BearerAuth(token("old", left_s=200), renew, clock=clock)

    assert [shown(auth), shown(auth)] == ["Bearer old", "Bearer old"]
    assert len(renew.refused) == 1
    clock.now += 31
    assert shown(auth) == "Bearer new"


def test_a_token_past_its_end_is_not_used() -> None:
    auth = BearerAuth(token("old", left_s=-1), Renewals(Retryable("remote_unavailable")), clock=Clock())

    with pytest.raises(Retryable):
        auth.headers()


def test_an_ended_authorization_is_reported_immediately() -> None:
    auth = BearerAuth(token("old", left_s=200), Renewals(ConfigurationError("unauthorized")), clock=Clock())

    with pytest.raises(ConfigurationError):
        auth.headers()


def test_the_token_never_shows() -> None:
    assert "canary" not in repr(token("canary"))
