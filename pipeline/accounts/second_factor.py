"""The optional second factor: one-time codes by time (RFC 6238, 30 s, six digits) and recovery codes for a lost phone."""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

import pyotp
import segno
from sqlalchemy.orm import Session

from db import audit
from db import operator as rows
from db.operator import Operator, Present
from db.session import transaction
from pipeline.accounts.operators import OperatorRefused, Renewal, end_other_sessions
from pipeline.settings import settings
from pipeline.vault import Vault

ISSUER: Final = "Hull-Pipedrive"
RECOVERY_CODES: Final = 10
STEP_S: Final = 30
_LABEL: Final = "totp"
_NO_CONNECTOR: Final = 0
"""Connectors have keys from 1, so an operator's secret cannot be decrypted as a connector's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Enrolment:
    """A secret for an authenticator app.

    secret  base32, for typing
    svg     a QR code, as an inline SVG element
    """

    secret: str
    svg: str


def begin(me: Present) -> Enrolment:
    """Create a secret; `confirm` turns it on. Raises: OperatorRefused if a second factor is on."""
    secret = pyotp.random_base32()
    with transaction() as session:
        operator = _lock(session, me.id)
        if operator.has_second_factor:
            raise OperatorRefused("the second factor is on: turn it off first")
        operator.totp_sealed = _vault().seal(_NO_CONNECTOR, _label(operator.id), secret)
        operator.totp_step = None
        audit.note(session, me.name, "second_factor.begin", me.name)
    uri = pyotp.TOTP(secret).provisioning_uri(name=me.name, issuer_name=ISSUER)
    return Enrolment(secret=secret, svg=segno.make(uri, error="m").svg_inline(scale=5, omitsize=True, light="#fff"))


def confirm(me: Present, code: str, renewal: Renewal) -> list[str]:
    """Turn the second factor on and end the operator's other sessions; API keys stay valid.

    Returns the recovery codes, which are shown only once. Raises: OperatorRefused. A wrong code deletes the secret, so that
    codes cannot be guessed.
    """
    codes = _confirm(me, code, renewal)
    if not codes:
        raise OperatorRefused("the code is wrong: check the clock of the device, and enter the code it shows now")
    return codes


def _confirm(me: Present, code: str, renewal: Renewal) -> list[str]:
    """Return the recovery codes; none after a wrong code."""
    with transaction() as session:
        operator = _lock(session, me.id)
        if operator.has_second_factor:
            raise OperatorRefused("the second factor is on already")
        if operator.totp_sealed is None or not _accept_totp(operator, code):
            operator.totp_sealed = None
            return []
        end_other_sessions(session, operator.id, renewal)
        operator.totp_confirmed_at = datetime.now(UTC)
        codes = ["-".join(secrets.token_hex(4) for _ in range(4)) for _ in range(RECOVERY_CODES)]
        operator.recovery_digests = [_digest(each) for each in codes]
        audit.note(session, me.name, "second_factor.on", me.name)
    return codes


def turn_off(operator: Operator) -> bool:
    """Remove an operator's second factor; return whether there was one."""
    had = operator.has_second_factor
    operator.totp_sealed = operator.totp_confirmed_at = operator.totp_step = None
    operator.recovery_digests = []
    return had


def turn_off_own(me: Present) -> None:
    """Turn the caller's own second factor off."""
    with transaction() as session:
        if turn_off(_lock(session, me.id)):
            audit.note(session, me.name, "second_factor.off", me.name)


def accept(session: Session, operator_id: int, code: str) -> bool:
    """Return whether a code of the app or a recovery code is correct, and use it up."""
    operator = _lock(session, operator_id)
    if _accept_totp(operator, code):
        return True
    given = _digest(code.strip().lower())
    known = next((each for each in operator.recovery_digests if hmac.compare_digest(bytes(each), given)), None)
    if known is None:
        return False
    operator.recovery_digests = [each for each in operator.recovery_digests if each != known]
    left = len(operator.recovery_digests)
    audit.note(session, operator.name, "second_factor.recovery_code", operator.name, detail={"left": left})
    return True


def renew_secrets(session: Session) -> int:
    """Encrypt all secrets again with the newest of SECRET_KEYS; return how many."""
    operators = rows.lock_sealed_secrets(session)
    for operator in operators:
        assert operator.totp_sealed is not None  # noqa: S101  # the query selects only these
        operator.totp_sealed = _vault().renew(operator.totp_sealed)
    return len(operators)


def _accept_totp(operator: Operator, code: str) -> bool:
    """Return whether the code is correct. The previous and the next step are valid too, because clocks differ; each once."""
    digits = "".join(code.split())
    if operator.totp_sealed is None or not (digits.isascii() and digits.isdigit()):
        return False
    totp = pyotp.TOTP(_vault().open(_NO_CONNECTOR, _label(operator.id), operator.totp_sealed))
    now = int(time.time()) // STEP_S
    for step in (now, now - 1, now + 1):
        if step > (operator.totp_step or 0) and hmac.compare_digest(totp.generate_otp(step), digits):
            operator.totp_step = step
            return True
    return False


def _lock(session: Session, operator_id: int) -> Operator:
    return session.get_one(Operator, operator_id, with_for_update=True)


def _label(operator_id: int) -> str:
    return f"{_LABEL}:{operator_id}"


def _digest(code: str) -> bytes:
    """Recovery codes have 128 random bits, so a fast hash is enough (older ones have 80 bits until they are created again)."""
    return hashlib.sha256(code.encode("utf-8", "surrogatepass")).digest()


def _vault() -> Vault:
    return Vault(settings().secret_keys)
