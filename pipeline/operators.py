"""Lets people in: passwords, sessions, keys for scripts, the first of them, and how often somebody may be wrong.

Argon2id by argon2-cffi under its defaults (RFC 9106, second recommended option: 64 MiB, 3 passes). A name that nobody has costs
the same time as a wrong password, so neither answer tells which names there are.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from base64 import b32encode
from functools import cache
from typing import Final

from argon2 import PasswordHasher
from argon2.exceptions import Argon2Error, InvalidHashError
from sqlalchemy.orm import Session

from db import audit
from db import operator as rows
from db.operator import Operator, Present
from db.session import transaction
from pipeline.domain.roles import Role
from pipeline.settings import settings
from pipeline.slow_work import PASSWORDS
from pipeline.telemetry import logger

SHORTEST_PASSWORD: Final = 10
LONGEST_PASSWORD: Final = 200
LONGEST_NAME: Final = 100
FREE_FAILURES: Final = 5
"""Wrong passwords in a row before the door stays shut for a while."""
FIRST_LOCK_S: Final = 10.0
LONGEST_LOCK_S: Final = 900.0
KEY_PREFIX: Final = "hpk_"
"""By which people and scanners of repositories know what they have found."""


class OperatorRefused(Exception):
    """It was not done; the text says why and what to do."""


class LoginRefused(Exception):
    """Nobody was let in. `wait_s` is how long the door stays shut, 0 when it does not."""

    def __init__(self, wait_s: float = 0) -> None:
        super().__init__("wrong name or password" if not wait_s else "too many tries")
        self.wait_s = wait_s


def first_code() -> str:
    """What opens `/setup` as long as there is no operator: known to whoever can read the key, the same in every process."""
    key = settings().secret_keys[0].encode()
    return b32encode(hmac.digest(key, b"the first operator", "sha256")[:15]).decode().lower()


def is_first_code(given: str) -> bool:
    return hmac.compare_digest(given.encode("utf-8", "surrogatepass"), first_code().encode())


def add_first(name: str, password: str) -> Operator:
    """Let the first person in, as an admin. Raises: OperatorRefused when there is somebody already."""
    password_hash = _hash(password)
    with transaction() as session:
        rows.lock_operators(session)
        if rows.any_operator(session):
            raise OperatorRefused("there is an operator already: log in, or ask an admin to add you")
        return _add(session, name, password_hash, Role.ADMIN, by="first run")


def add(name: str, password: str, role: Role, *, by: str) -> Operator:
    """Let somebody in. Raises: OperatorRefused."""
    password_hash = _hash(password)
    with transaction() as session:
        return _add(session, name, password_hash, role, by=by)


def change(
    name: str, *, by: str, role: Role | None = None, password: str | None = None, state: str | None = None
) -> None:
    """Change somebody's role, password or state; they log in again. Raises: OperatorRefused, also for the last admin."""
    password_hash = None if password is None else _hash(password)  # takes long: no lock may wait for it
    with transaction() as session:
        rows.lock_operators(session)
        operator = rows.find_operator(session, name)
        if operator is None:
            raise OperatorRefused(f"there is no operator {name!r}")
        if password_hash is not None:
            operator.password_hash = password_hash
        operator.role, operator.state = role or operator.role, state or operator.state
        session.flush()
        if rows.count_admins(session) == 0:
            raise OperatorRefused(f"{name} is the last admin: make somebody else one first")
        rows.close_sessions_of(session, operator.id)
        changed = {"role": role, "state": state, "password": "changed" if password else None}
        told = {what: str(value) for what, value in changed.items() if value is not None}
        audit.note(session, by, "operator.change", operator.name, detail=told)


def log_in(name: str, password: str, address: str) -> tuple[str, Present]:
    """(token of a new session, who it is). Raises: LoginRefused."""
    found = prove(name, password, address)
    with transaction() as session:
        return open_session(session, found), Present(id=found.id, name=found.name, role=found.role)


def prove(name: str, password: str, address: str) -> Operator:
    """Whose name and password these are; whoever is wrong too often waits. Raises: LoginRefused."""
    subjects = [_subject("address", address), _subject("name", name.lower())]
    with transaction() as session:
        if wait_s := rows.locked_s(session, subjects):
            logger().warning("operator.login.refused", why="locked", wait_s=round(wait_s))
            raise LoginRefused(wait_s)
        found = rows.find_operator(session, name)
    is_right = _verify(found.password_hash if found else None, password)
    with transaction() as session:
        if found is None or not is_right or found.state != "active":
            rows.note_failed_login(
                session, subjects, free=FREE_FAILURES, first_s=FIRST_LOCK_S, longest_s=LONGEST_LOCK_S
            )
            logger().warning("operator.login.refused", why="wrong")
        else:
            rows.forget_failed_logins(session, subjects[1])
            return found
    raise LoginRefused


def open_session(session: Session, operator: Operator) -> str:
    """The token of a new session: 256 bits that are kept nowhere but with whoever is given it."""
    token = secrets.token_urlsafe(32)
    rows.open_session(session, operator.id, digest_of(token))
    audit.note(session, operator.name, "operator.login", operator.name)
    return token


def who_is(token: str) -> Present | None:
    """Who is logged in by this token."""
    with transaction() as session:
        return rows.find_session(session, digest_of(token))


def who_holds(key: str) -> Present | None:
    """Whose key for scripts this is."""
    if not key.startswith(KEY_PREFIX):
        return None
    with transaction() as session:
        return rows.find_key(session, digest_of(key))


def log_out(token: str) -> None:
    with transaction() as session:
        rows.close_session(session, digest_of(token))


def make_key(operator_id: int, name: str, *, by: str) -> str:
    """A new key for scripts; it is shown this once."""
    key = KEY_PREFIX + secrets.token_urlsafe(32)
    with transaction() as session:
        session.add(rows.ApiKey(operator_id=operator_id, name=name, digest=digest_of(key)))
        audit.note(session, by, "key.add", name)
    return key


def csrf_of(token: str) -> str:
    """What every form of this session carries; whoever has not read a page of it cannot know it."""
    return hmac.digest(token.encode(), b"forms", "sha256").hex()


def digest_of(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()


def _add(session: Session, name: str, password_hash: str, role: Role, *, by: str) -> Operator:
    if not name.strip() or len(name) > LONGEST_NAME or not name.isprintable():
        raise OperatorRefused(f"a name has 1 to {LONGEST_NAME} visible characters")
    try:
        operator_id = rows.put_operator(session, name.strip(), password_hash, role)
    except ValueError as taken:
        raise OperatorRefused(str(taken)) from None
    audit.note(session, by, "operator.add", name.strip().lower(), detail={"role": str(role)})
    return session.get_one(Operator, operator_id)


def _hash(password: str) -> str:
    if not SHORTEST_PASSWORD <= len(password) <= LONGEST_PASSWORD:
        raise OperatorRefused(
            f"a password has {SHORTEST_PASSWORD} to {LONGEST_PASSWORD} characters; length is what counts"
        )
    with PASSWORDS.entered():
        return _hasher().hash(password)


def _verify(known: str | None, password: str) -> bool:
    """Whether the password belongs to the hash; without one it takes as long, and is False."""
    try:
        with PASSWORDS.entered():
            return _hasher().verify(known or _nobodys_hash(), password[:LONGEST_PASSWORD])
    except (Argon2Error, InvalidHashError):
        return False


@cache
def _hasher() -> PasswordHasher:
    return PasswordHasher()


@cache
def _nobodys_hash() -> str:
    return _hasher().hash(secrets.token_urlsafe(16))


def _subject(kind: str, value: str) -> str:
    """Names and addresses are personal: what is kept of them is a digest."""
    return f"{kind}:{hashlib.sha256(value.encode('utf-8', 'surrogatepass')).hexdigest()[:32]}"
