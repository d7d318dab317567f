"""What a token of an app may call: one of the scopes the OpenAPI files list for the operation.

In: the kind of call from the route table, method and path. A path the API does not have is refused in the same words.
"""

from __future__ import annotations

from sandbox.pipedrive import answers

_WRITE = frozenset({"contacts:full"})
_READ = _WRITE | {"contacts:read"}
_FIELDS = frozenset({"contact-fields:full", "admin"})
_NEEDED: dict[str, frozenset[str]] = {
    "list": _READ,
    "get": _READ,
    "search": _READ | {"search:read"},
    "create": _WRITE,
    "update": _WRITE,
    "delete": _WRITE,
    "merge": _WRITE,
    "user": frozenset({"base"}),
    "webhooks": frozenset({"admin"}),
}


def demand(scopes: frozenset[str] | None, call: str, method: str, path: str) -> None:
    """Let a call pass or not; `scopes` None holds all. Raises: ApiError 403."""
    if scopes is not None and not scopes & needed(call, method, path):
        raise answers.gateway(403, "Scope and URL mismatch")


def needed(call: str, method: str, path: str) -> frozenset[str]:
    """Name the scopes of which one suffices; none does for a path that does not exist."""
    if path.endswith("/itemSearch"):
        return frozenset({"search:read"})
    if call != "fields":
        return _NEEDED.get(call, frozenset())
    if method == "GET":
        return _FIELDS | _READ
    return _FIELDS | _WRITE if method == "PATCH" or path.endswith("/options") else _FIELDS
