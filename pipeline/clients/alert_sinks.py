"""Sinks of alerts: a web address, mailboxes. A sink that fails raises `NotDelivered`, with a text without secrets."""

from __future__ import annotations

import smtplib
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from email.message import EmailMessage
from typing import Any, Final
from urllib.parse import urlsplit

import requests

from pipeline.errors import ConfigurationError

TIMEOUT_S: Final = 5.0
"""For each step of an exchange: connecting, and every answer."""
SMTP_PORTS: Final = {"smtp": 587, "smtps": 465, "smtp+plain": 25}


class NotDelivered(Exception):
    """Sending an alert failed. The text is the reason, without the address and the answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice:
    """One alert message: as a document for programs, as a line and a text for people."""

    subject: str
    body: str
    document: Mapping[str, Any]


Sink = Callable[[Notice], None]
"""Raises: NotDelivered."""


@dataclass(frozen=True, slots=True)
class WebhookSink:
    """Post JSON to the configured address; redirects are not followed."""

    url: str = field(repr=False)
    session_for: Callable[[], requests.Session] = requests.Session

    def __call__(self, notice: Notice) -> None:
        try:
            with self.session_for() as session:
                session.trust_env = False  # a .netrc would send a password along
                answer = session.post(
                    self.url,
                    json={"text": f"{notice.subject}\n{notice.body}", **notice.document},
                    timeout=(TIMEOUT_S, TIMEOUT_S),
                    allow_redirects=False,
                    stream=True,
                )
                status = answer.status_code
                answer.close()
        except (requests.RequestException, ConfigurationError) as error:
            raise NotDelivered(type(error).__name__) from None
        if not 200 <= status < 300:
            raise NotDelivered(f"status {status}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Relay:
    """A server that takes mail. url  `smtps://user@host:465`, `smtp://…` with STARTTLS, `smtp+plain://…` without."""

    url: str
    password: str | None = field(repr=False)


@dataclass(frozen=True, slots=True)
class MailSink:
    """Sends one mail to all mailboxes. TLS is checked against the system's authorities; without it no password is sent."""

    relay: Relay
    sender: str
    to: tuple[str, ...]

    def __call__(self, notice: Notice) -> None:
        mail = EmailMessage()
        mail["Subject"] = one_line(notice.subject)
        mail["From"] = self.sender
        mail["To"] = ", ".join(self.to)
        mail["Auto-Submitted"] = "auto-generated"
        mail.set_content(notice.body)
        try:
            with self._connected() as server:
                refused = server.send_message(mail)
        except smtplib.SMTPResponseException as error:
            raise NotDelivered(f"status {error.smtp_code}") from None
        except (OSError, smtplib.SMTPException) as error:
            raise NotDelivered(type(error).__name__) from None
        if refused:
            raise NotDelivered(f"{len(refused)} of {len(self.to)} mailboxes were refused")

    def _connected(self) -> smtplib.SMTP:
        parts = urlsplit(self.relay.url)
        host, port = parts.hostname or "", parts.port or SMTP_PORTS[parts.scheme]
        tls = ssl.create_default_context()
        if parts.scheme == "smtps":
            server: smtplib.SMTP = smtplib.SMTP_SSL(host, port, timeout=TIMEOUT_S, context=tls)
        else:
            server = smtplib.SMTP(host, port, timeout=TIMEOUT_S)
        try:
            if parts.scheme == "smtp":
                server.starttls(context=tls)
            if parts.username and self.relay.password is not None:
                server.login(parts.username, self.relay.password)
        except BaseException:
            server.close()
            raise
        return server


def one_line(text: str) -> str:
    """For a header: remove characters that cannot be printed."""
    return "".join(character for character in text if character.isprintable())[:200]
