"""The five kinds of errors that work can end with.

    PipelineError
    ├── Skip                 correctly, there is nothing to do
    ├── Retryable            a remote system or the network failed; retry, not before `retry_after_s`
    ├── Rejected             this record (or page) cannot be accepted as it is; stored as a failure, can be replayed
    ├── ConfigurationError   a person must act before work can continue
    └── LostLease            another worker owns this batch now; stop without writing anything

Every error has a reason code of `pipeline.domain.reasons`, which contains its meaning and the next step. Any other
exception is a defect of the pipeline: it is recorded with its traceback and never retried blindly.
HTTP answers become these errors in `pipeline.clients.http_answers` only; they become outcomes in `pipeline.sync.stage`.
"""

from __future__ import annotations

from typing import Final

NOTHING_SENT: Final = frozenset(
    {
        "remote_unreachable",
        "remote_outage",
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
    """An expected error. `detail` may contain ids, fields, codes and statuses; never values of a record."""

    def __init__(self, reason: str, detail: str = "", *, field: str | None = None) -> None:
        self.reason = reason
        self.detail = detail
        self.field = field
        super().__init__(reason, detail)

    def __str__(self) -> str:
        where = f" (field {self.field})" if self.field else ""
        return f"{self.reason}{where}: {self.detail}" if self.detail else f"{self.reason}{where}"


class Skip(PipelineError):
    """Correctly, there is nothing to do for this record."""


class Retryable(PipelineError):
    """The remote system or the network failed; the same work may succeed later."""

    def __init__(self, reason: str, detail: str = "", *, retry_after_s: float | None = None) -> None:
        super().__init__(reason, detail)
        self.retry_after_s = retry_after_s


class Rejected(PipelineError):
    """The record or page was read and cannot be accepted as it is."""


class ConfigurationError(PipelineError):
    """A person must change a setting, a credential or a permission first."""


class LostLease(PipelineError):
    """The lease expired and another worker took over the batch: the results of this worker are stale."""
