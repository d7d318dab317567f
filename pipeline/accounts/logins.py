"""Verify logins, and slow down guessing without locking operators out.

Failures are counted for a name at one place, for a place, and for a name at places where it never logged in. Each count
has free attempts; then each attempt waits longer than the one before. A success resets its own failures. A browser where
an operator has logged in has a device cookie (OWASP, "Slow Down Online Guessing Attacks with Device Cookies"). It counts
as a separate place, so it does not wait when others guess the name elsewhere.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time
from base64 import urlsafe_b64decode, urlsafe_b64encode
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address
from typing import Final

import orjson
from sqlalchemy.orm import Session

from db import audit, login_attempt
from db import operator as rows
from db.login_attempt import Key, Limit, ReservedAttempt
from db.operator import Operator
from db.session import transaction
from pipeline.accounts import operators, passwords, second_factor
from pipeline.settings import settings
from pipeline.slow_work import Overloaded
from pipeline.telemetry import logger

NAME_AT_PLACE: Final = Limit(free=5, decay_s=86_400, first_s=10, longest_s=900)
PLACE: Final = Limit(free=30, decay_s=120, first_s=10, longest_s=300)
"""An office shares an address: thirty typos, and one more every two minutes, are free."""
NAME_ELSEWHERE: Final = Limit(free=20, decay_s=60, first_s=5, longest_s=60)
"""Guesses from many addresses wait; the operator in a known browser does not."""
TICKET_S: Final = 300
"""How long the page for the second factor is valid."""
IPV6_NETWORK: Final = 64
"""One customer has at least this much of IPv6, so single addresses are not counted."""
_ANY: Final = b""


class LoginRefused(Exception):
    """The login failed. `wait_s`: seconds until the next attempt is checked, 0 if it is checked immediately."""

    def __init__(self, wait_s: float = 0) -> None:
        super().__init__("too many attempts" if wait_s else "wrong name, password or code")
        self.wait_s = wait_s


@dataclass(frozen=True, slots=True, kw_only=True)
class LoginOrigin:
    """Where a login comes from.

    device  the device cookie as the browser sent it, or an empty text
    """

    address: str
    agent: str = ""
    device: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoggedIn:
    """A login that succeeded; `device` is the cookie that makes this browser a known one."""

    token: str
    device: str


def log_in(name: str, password: str, caller: LoginOrigin, *, earlier: str = "") -> LoggedIn | str:
    """Log in by name and password.

    earlier  the token of a session that this browser had; it ends

    Returns the new session, or a ticket for `log_in_with_code` where the operator has a second factor. Raises: LoginRefused.
    """
    reserved = _reserve(name, caller)
    operator = _check_password(name, password, reserved)
    if operator.has_second_factor:
        return _ticket(operator)  # the attempt stays counted until the code is right
    return _succeed(operator, caller, reserved, earlier=earlier, how="password")


def log_in_with_code(ticket: str, code: str, caller: LoginOrigin, *, earlier: str = "") -> LoggedIn:
    """Finish a login by a code of the second factor. Raises: LoginRefused, also for an old ticket."""
    operator = _operator_of(ticket)
    if operator is None:
        raise LoginRefused
    reserved = _reserve(operator.name, caller)
    with transaction() as session:
        is_right = second_factor.accept(session, operator.id, code)
        if not is_right:
            audit.note(session, operator.name, "operator.login_failed", operator.name, detail={"why": "code"})
    if not is_right:
        logger().warning("operator.login.refused", why="code", operator_id=operator.id)
        raise LoginRefused
    return _succeed(operator, caller, reserved, earlier=earlier, how="password and code")


def log_in_by_proxy(name: str, caller: LoginOrigin, *, earlier: str = "") -> LoggedIn:
    """Log in an operator whom the trusted proxy has authenticated. Raises: LoginRefused if it is not an active operator."""
    with transaction() as session:
        operator = rows.find_operator(session, name)
        if operator is None or operator.state != "active":
            audit.note(session, "unknown", "operator.login_failed", "single sign-on", detail={"why": "no operator"})
    if operator is None or operator.state != "active":
        logger().warning("operator.login.refused", why="no operator")
        raise LoginRefused
    return _succeed(operator, caller, None, earlier=earlier, how="single sign-on")


def prove(name: str, password: str, caller: LoginOrigin) -> Operator:
    """Verify the password of a logged-in operator, and return the operator. Raises: LoginRefused."""
    reserved = _reserve(name, caller)
    operator = _check_password(name, password, reserved)
    with transaction() as session:
        login_attempt.forgive(session, reserved)
    return operator


def unlock(session: Session, name: str) -> int:
    """Delete the failed logins of a name, so that its next login does not wait; return the number of counts."""
    return login_attempt.unlock(session, _digest("name", name.lower()))


def _check_password(name: str, password: str, reserved: ReservedAttempt) -> Operator:
    """Return the operator of this name and password. No transaction stays open while Argon2 works.

    Raises: LoginRefused; Overloaded, and then the attempt does not count.
    """
    with transaction() as session:
        operator = rows.find_operator(session, name)
    try:
        is_right = passwords.verify(operator.password_hash if operator else passwords.NO_PASSWORD, password)
    except Overloaded:
        with transaction() as session:
            login_attempt.give_back(session, reserved)
        raise
    if operator is not None and is_right and operator.state == "active":
        return operator
    known = operator.name if operator else "unknown"  # an invalid name may be a password typed into the wrong field
    with transaction() as session:
        audit.note(session, known, "operator.login_failed", known, detail={"why": "password"})
    logger().warning("operator.login.refused", why="wrong")
    raise LoginRefused


def _reserve(name: str, caller: LoginOrigin) -> ReservedAttempt:
    """Count the attempt. Raises: LoginRefused if it has to wait."""
    name_digest = _digest("name", name.lower())
    if _is_known_device(name, caller.device):
        own: Key = (name_digest, _digest("device", caller.device))
        limits = [(own, NAME_AT_PLACE)]
    else:
        place = _digest("address", _network(caller.address))
        own = (name_digest, place)
        limits = [(own, NAME_AT_PLACE), ((_ANY, place), PLACE), ((name_digest, _ANY), NAME_ELSEWHERE)]
    with transaction() as session:
        reserved = login_attempt.reserve_attempt(session, limits)
    if reserved.wait_s:
        logger().warning("operator.login.refused", why="throttled", wait_s=round(reserved.wait_s))
        raise LoginRefused(reserved.wait_s)
    return reserved


def _succeed(
    operator: Operator, caller: LoginOrigin, reserved: ReservedAttempt | None, *, earlier: str, how: str
) -> LoggedIn:
    with transaction() as session:
        _require_unchanged(operator, rows.lock_operator(session, operator.id))
        if reserved is not None:
            login_attempt.forgive(session, reserved)
        if earlier:
            rows.close_session(session, operators.digest_of(earlier))
        token = operators.open_session(session, operator, address=caller.address, agent=caller.agent, how=how)
    device = caller.device if _is_known_device(operator.name, caller.device) else _new_device(operator.name)
    return LoggedIn(token=token, device=device)


def _require_unchanged(proved: Operator, operator: Operator) -> None:
    """Reject a login if the operator's password, second factor or state has changed since it began. Raises: LoginRefused."""
    for what in ("password_hash", "state", "totp_confirmed_at"):
        if getattr(proved, what) != getattr(operator, what):
            raise LoginRefused


def _new_device(name: str) -> str:
    nonce = secrets.token_urlsafe(16)
    return f"{nonce}.{_device_mac(name, nonce)}"


def _is_known_device(name: str, cookie: str) -> bool:
    nonce, dot, mac = cookie.partition(".")
    return bool(dot) and hmac.compare_digest(mac.encode("utf-8", "surrogatepass"), _device_mac(name, nonce).encode())


def _device_mac(name: str, nonce: str) -> str:
    return _mac("device", name.lower(), nonce).hex()


def _ticket(operator: Operator) -> str:
    """Return a signed ticket for the second step: operator and expiry. A new password invalidates it."""
    body = orjson.dumps([operator.id, int(time.time()) + TICKET_S])
    mac = _mac("second factor", body.decode(), operator.password_hash)
    return f"{urlsafe_b64encode(body).decode()}.{mac.hex()}"


def _operator_of(ticket: str) -> Operator | None:
    coded, _, mac = ticket.partition(".")
    try:
        body = urlsafe_b64decode(coded)
        operator_id, until = orjson.loads(body)
        with transaction() as session:
            operator = session.get(Operator, int(operator_id)) if 0 < int(operator_id) < 2**63 else None
    except (ValueError, TypeError):
        return None
    if operator is None or operator.state != "active":
        return None
    expected = _mac("second factor", body.decode(), operator.password_hash).hex()
    is_right = hmac.compare_digest(mac.encode("utf-8", "surrogatepass"), expected.encode())
    return operator if is_right and time.time() < until else None


def _mac(*parts: str) -> bytes:
    """Return a digest of parts with their lengths, keyed by the newest of SECRET_KEYS."""
    message = b"".join(
        len(octets).to_bytes(4, "big") + octets for octets in (p.encode("utf-8", "surrogatepass") for p in parts)
    )
    return hmac.digest(settings().secret_keys[0].encode(), message, "sha256")


def _network(address: str) -> str:
    try:
        parsed = ip_address(address)
    except ValueError:
        return address
    if isinstance(parsed, IPv6Address) and parsed.ipv4_mapped is None:
        return str(int(parsed) >> (128 - IPV6_NETWORK))
    return str(getattr(parsed, "ipv4_mapped", None) or parsed)


def _digest(kind: str, value: str) -> bytes:
    return hashlib.sha256(f"{kind}:{value}".encode("utf-8", "surrogatepass")).digest()[:16]


DAYS: Final = 90


def new_mark() -> str:
    """Return the cookie of a browser that has just logged in."""
    made = str(int(time.time()))
    return f"{made}.{_browser_mark_mac(made, settings().secret_keys[0])}"


def is_mark(given: str) -> bool:
    """Return whether an operator logged in with this browser in the last DAYS."""
    made, _, mac = given.partition(".")
    if not (made.isascii() and made.isdigit() and len(made) <= 12) or time.time() - int(made) > DAYS * 86_400:
        return False
    sent = mac.encode("utf-8", "surrogatepass")
    return any(hmac.compare_digest(sent, _browser_mark_mac(made, key).encode()) for key in settings().secret_keys)


def _browser_mark_mac(made: str, key: str) -> str:
    return hmac.digest(key.encode(), f"a browser that was logged in {made}".encode(), "sha256").hex()
