"""Whether Pipedrive tells us of its changes, in a sentence for people."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from sqlalchemy.orm import Session

from db import connector as connectors
from db import delivery as deliveries
from db import subscription as subscriptions
from db.subscription import Subscription
from pipeline.domain.kinds import Entity
from pipeline.transform.subscriptions import ACTIVE

UNHEARD: Final = "Pipedrive does not send changes by itself yet: they arrive with the next fetch only."
WORDS: Final = {
    "missing": "is gone",
    "paused": "is paused by Pipedrive",
    "failing": "does not get through",
    "moved": "points elsewhere",
    "silent": "is silent, though records changed",
}
"""State of a subscription → what it does."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hearing:
    """`sentence` says how the webhooks stand and what happens next; `is_well` when nothing has to."""

    is_well: bool
    sentence: str


def hearing(session: Session, connector_key: int) -> Hearing:
    """How the webhooks of a connector stand, as the last check and the last delivery left them."""
    rows = subscriptions.subscriptions_of(session, connector_key)
    if "webhook_path" not in connectors.credentials_of(session, connector_key) or any(
        row.sound_at is None for row in rows
    ):
        return Hearing(is_well=False, sentence=UNHEARD)
    if not rows:
        return Hearing(is_well=True, sentence="Webhooks have not been looked at yet.")
    ill = [_ill(row) for row in rows if row.state != ACTIVE]
    if ill:
        return Hearing(is_well=False, sentence=" ".join(ill))
    told_at = deliveries.last_delivery(session, connector_key, "pipedrive")
    last = f"the last one came at {told_at:%Y-%m-%d %H:%M:%S} UTC" if told_at else "none has come yet"
    return Hearing(is_well=True, sentence=f"Webhooks are healthy; {last}.")


def _ill(row: Subscription) -> str:
    since = f"{row.sound_at:%Y-%m-%d %H:%M:%S} UTC"
    plural = Entity(row.entity).plural.capitalize()
    return f"The webhook for {plural} {WORDS[row.state]}: it is being healed, and what changed since {since} is then fetched."
