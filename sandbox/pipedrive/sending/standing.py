"""How a webhook stands with Pipedrive: its failures, its ban, the days without success; and the rules these follow.

In: the outcome of attempts, moments in epoch seconds. Out: whether it may be sent to. Source: docs page guide-for-webhooks-v2.
"""

from __future__ import annotations

from dataclasses import dataclass

from sandbox.control import number


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What Pipedrive does about receivers. The last two are undocumented and may be either way. Raises: ValueError for no number.

    `timeout_s` is of the wall, since the receiver lives there; the others are of the company's clock.
    """

    timeout_s: float = 10.0
    retry_after_s: tuple[float, ...] = (3.0, 30.0, 150.0)
    failures_to_ban: int = 10  # failed first attempts; retries do not count
    ban_s: float = 1_800.0
    delete_after_s: float = 3 * 86_400.0  # from the first failure that no success followed
    success_resets: bool = True  # a success sets the count of failures to 0
    stable_id: bool = True  # a retry has the meta.id of its first attempt

    def __post_init__(self) -> None:
        if not isinstance(self.retry_after_s, tuple | list):
            raise ValueError("retry_after_s: must be an array")  # noqa: TRY004 (one error for all that is wrong)
        for name in ("timeout_s", "failures_to_ban", "ban_s", "delete_after_s"):
            number(getattr(self, name), name)
        for wait_s in self.retry_after_s:
            number(wait_s, "retry_after_s")


@dataclass(slots=True)
class Standing:
    """The standing of one webhook. The caller holds a lock."""

    failures: int = 0
    banned_until: float | None = None
    failing_since: float | None = None

    def end_ban(self, now: float) -> None:
        """End a ban whose time is up; it leaves no failures behind."""
        if self.banned_until is not None and now >= self.banned_until:
            self.banned_until, self.failures = None, 0

    def ban(self, until: float) -> None:
        """Have everything dropped until then."""
        self.banned_until = until

    def succeed(self, rules: Rules) -> None:
        """Note a success."""
        self.failing_since = None
        if rules.success_resets:
            self.failures = 0

    def fail(self, now: float, rules: Rules, *, first: bool) -> bool:
        """Note a failed attempt; True when it is the first since the last success."""
        begins = self.failing_since is None
        if begins:
            self.failing_since = now
        if first and self.banned_until is None:
            self.failures += 1
            if self.failures >= rules.failures_to_ban:
                self.ban(now + rules.ban_s)
        return begins

    def is_hopeless(self, now: float, rules: Rules) -> bool:
        """Tell whether it has failed for so long that the webhook is deleted."""
        return self.failing_since is not None and now - self.failing_since >= rules.delete_after_s
