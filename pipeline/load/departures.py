"""Inform Hull of records that Pipedrive no longer has: mark each one, or merge its User or Account with another one."""

from __future__ import annotations

from collections.abc import Iterable

from pipeline.clients.hull import MessageWriter
from pipeline.domain.deletions import DeletionEffect
from pipeline.domain.kinds import Claim, Entity, anonymous_id


def compose(entity: Entity, farewells: Iterable[DeletionEffect], writer: MessageWriter) -> list[bytes]:
    """Return the messages for Hull, in order; none for a deletion that Hull does not need.

    A record is named by its anonymous id alone: its e-mail or domain may belong to another one by now.
    """
    write, alias = (
        (writer.user_traits, writer.user_alias)
        if entity is Entity.PERSON
        else (writer.account_traits, writer.account_alias)
    )
    messages = []
    for farewell in farewells:
        departed, survivor = farewell.deletion.pipedrive_id, farewell.deletion.merged_into
        if farewell.joins and survivor is not None:
            messages.append(alias(_who(survivor), anonymous_id(departed)))
        elif farewell.attributes:
            messages.append(write(_who(departed), farewell.attributes))
    return messages


def _who(pipedrive_id: int) -> dict[str, str]:
    return {Claim.ANONYMOUS_ID.value: anonymous_id(pipedrive_id)}
