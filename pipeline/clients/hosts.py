"""Which hosts may be called. Host names reach us from outside (tokens, headers, messages) and are never trusted.

Source: https://cheatsheetseries.owasp.org/cheatsheets/Server_Side_Request_Forgery_Prevention_Cheat_Sheet.html
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Collection
from urllib.parse import SplitResult, urlsplit

from pipeline.errors import ConfigurationError

_PIPEDRIVE = re.compile(r"[a-z0-9-]+\.pipedrive\.com")


def check_api_url(api_domain: str) -> str:
    """The origin to call for an `api_domain` as a token answer gives it, with or without a scheme.

    Raises: ConfigurationError("host_refused").
    """
    host = api_domain.strip().lower().removeprefix("https://").removesuffix("/")
    if not _PIPEDRIVE.fullmatch(host):
        raise ConfigurationError("host_refused", "the api_domain is no company of pipedrive.com")
    return f"https://{host}"


def require_allowed(url: str, allowed: Collection[str], *, purpose: str) -> str:
    """Return the URL when its host (`host` or `host:port`) is allowed: over https, or over http to this machine itself.

    Raises: ConfigurationError("host_refused"), which names the purpose but not the URL.
    """
    parts = urlsplit(url)
    if _is_allowed(parts, allowed) and not (parts.username or parts.password or parts.fragment):
        return url
    raise ConfigurationError("host_refused", f"{purpose}: this address is not in the allow-list")


def _is_allowed(parts: SplitResult, allowed: Collection[str]) -> bool:
    netloc = parts.netloc.lower()
    if not netloc or netloc not in {host.strip().lower() for host in allowed}:
        return False
    return parts.scheme == "https" or (parts.scheme == "http" and is_loopback(parts.hostname or ""))


def is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
