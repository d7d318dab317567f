"""Stored secrets: encrypt them again with the newest key."""

from __future__ import annotations

from pydantic import BaseModel

from pipeline.domain.kinds import Role
from pipeline.operations.call import Call
from pipeline.operations.models import NoRequest
from pipeline.operations.registry import operation
from pipeline.settings import settings
from pipeline.sync.connectors.setup import renew_secrets


class RotatedAnswer(BaseModel):
    renewed: int
    keys_no_longer_needed: int


@operation("", role=Role.ADMIN, audit_action="secrets.renew", command="rotate-keys")
def rotate_keys(call: Call, _request: NoRequest) -> RotatedAnswer:
    """Encrypt every stored secret again with the first of SECRET_KEYS.

    First put the new key before the old one and restart everything; then run this; then remove the old key.
    """
    with call.transaction("secrets") as session:
        renewed = renew_secrets(session)
    return RotatedAnswer(renewed=renewed, keys_no_longer_needed=len(settings().secret_keys) - 1)
