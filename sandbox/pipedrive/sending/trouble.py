"""Trouble on the way to a subscriber, made on purpose and the same for the same seed.

In: shares. Out: what becomes of one delivery. Five numbers are drawn for each delivery whatever the shares are, so that
changing one share leaves the fate of the others as it was.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from sandbox.control import number

REPEATED_WITHIN_S = 10.0
LAST_ATTEMPT = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Trouble:
    """How much of what goes wrong: shares between 0 and 1 of all deliveries. Raises: ValueError for anything else.

    `lost` never leaves. `duplicated` arrives once more within ten seconds, with the same meta.id. `delayed` is held back up to
    `delay_s`, which also shuffles. `legacy` has the shape of version 1.0. `astray` starts with the second to fourth attempt, as
    if those before had gone astray on the way.
    """

    seed: int | str = 1
    lost: float = 0.0
    duplicated: float = 0.0
    delayed: float = 0.0
    delay_s: float = 60.0
    legacy: float = 0.0
    astray: float = 0.0

    def __post_init__(self) -> None:
        for share in ("lost", "duplicated", "delayed", "legacy", "astray"):
            if not 0 <= number(getattr(self, share), share) <= 1:
                raise ValueError(f"{share}: must be between 0 and 1")
        if number(self.delay_s, "delay_s") < 0:
            raise ValueError("delay_s: must not be negative")
        if not isinstance(self.seed, int | str):
            raise ValueError("seed: must be a number or a text")  # noqa: TRY004 (one error for all that is wrong)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fate:
    """What becomes of one delivery; `repeated_after_s` None means once only."""

    lost: bool
    delay_s: float
    repeated_after_s: float | None
    legacy: bool
    attempt: int


class Fates:
    """Draws one fate after the other. The caller holds a lock."""

    def __init__(self, trouble: Trouble) -> None:
        self.trouble = trouble
        self._random = random.Random(trouble.seed)

    def draw(self) -> Fate:
        """Decide about the next delivery."""
        trouble = self.trouble
        lost, duplicated, delayed, legacy, astray = (self._random.random() for _ in range(5))
        return Fate(
            lost=lost < trouble.lost,
            delay_s=delayed / trouble.delayed * trouble.delay_s if delayed < trouble.delayed else 0.0,
            repeated_after_s=duplicated / trouble.duplicated * REPEATED_WITHIN_S
            if duplicated < trouble.duplicated
            else None,
            legacy=legacy < trouble.legacy,
            attempt=2 + int(astray / trouble.astray * (LAST_ATTEMPT - 1)) if astray < trouble.astray else 1,
        )
