"""An answer that all viewers share: asked once, and nothing is remembered of questions nobody asks any more."""

from __future__ import annotations

from pipeline.operations.cached_answers import KEPT, Shared


def test_of_thousands_of_questions_few_are_remembered() -> None:
    shared: Shared[int, int] = Shared(lambda key: key)

    assert [shared(key) for key in range(5 * KEPT)] == list(range(5 * KEPT))
    assert len(shared._asking) <= KEPT
    assert len(shared._answers) <= KEPT
