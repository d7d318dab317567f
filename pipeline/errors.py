"""The five ends a piece of work can have when it does not simply succeed.

    PipelineError
    ├── Skip                 rightly nothing to do
    ├── Retryable            the world is unwell; try again, not before `retry_after_s`
    ├── Rejected             this one record (or page) cannot pass as it is; kept for a person, replayable
    ├── ConfigurationError   a person must act before anything can go on
    └── LostLease            another worker owns this batch now; stop without a word

Every error carries a reason code of `pipeline.domain.reasons`, which holds the sentence an operator reads and the next
step. Anything that is not a PipelineError is a bug of ours: it is recorded whole and never retried blindly.
HTTP answers become these errors in `pipeline.clients.http` only; they become outcomes in `pipeline.sync.stage`.
"""

from __future__ import annotations

from typing import Final

NOTHING_SENT: Final = frozenset(
    {
        "remote_unreachable",
        "remote_waits",
        "slots_taken",
        "rate_limited",
        "daily_budget_spent",
        "redis_unavailable",
        "lease_uncertain",
        "lease_lost",
    }
)
"""Reasons why a call certainly did not reach the remote system."""


class PipelineError(Exception):
    """An anticipated end. `detail` may name ids, fields, codes and statuses; never values of a record."""

    def __init__(self, reason: str, detail: str = "", *, field: str | None = None) -> None:
        self.reason = reason
        self.detail = detail
        self.field = field
        super().__init__(reason, detail)

    def __str__(self) -> str:
        where = f" (field {self.field})" if self.field else ""
        return f"{self.reason}{where}: {self.detail}" if self.detail else f"{self.reason}{where}"


class Skip(PipelineError):
    """There is rightly nothing to do for this record."""


class Retryable(PipelineError):
    """The remote system or the network failed; the same work may succeed later."""

    def __init__(self, reason: str, detail: str = "", *, retry_after_s: float | None = None) -> None:
        super().__init__(reason, detail)
        self.retry_after_s = retry_after_s


class Rejected(PipelineError):
    """The record or page was read and cannot be accepted as it is."""


class ConfigurationError(PipelineError):
    """Somebody must change a setting, a credential or a permission first."""


class LostLease(PipelineError):
    """The lease ran out and somebody else took the batch over: whatever this worker still holds is stale."""
