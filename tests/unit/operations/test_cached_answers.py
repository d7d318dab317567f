"""Answers that all viewers share: each is computed once, and old ones are dropped."""

from __future__ import annotations

from pipeline.operations.cached_answers import KEPT, Shared


def test_few_of_thousands_of_answers_are_kept() -> None:
    shared: Shared[int, int] = Shared(lambda key: key)

    assert [shared(key) for key in range(5 * KEPT)] == list(range(5 * KEPT))
    assert len(shared._asking) <= KEPT
    assert len(shared._answers) <= KEPT
