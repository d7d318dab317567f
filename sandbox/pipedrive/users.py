"""GET /v1/users/me: whose token this is, and of which company.

Source: the v1 OpenAPI file, path /users/me.
"""

from __future__ import annotations

from flask import Response, g

from sandbox.company import Company
from sandbox.pipedrive import answers
from sandbox.pipedrive.gate.access import Caller


def me(company: Company) -> Response:
    """Answer for the user the caller's token belongs to, in the company it was granted for."""
    caller: Caller = g.caller
    user = caller.user
    apps = ("sales", "global", "account_settings")
    data = {
        "id": user.id,
        "name": user.name,
        "default_currency": "EUR",
        "locale": "en_GB",
        "lang": 1,
        "email": user.email,
        "phone": None,
        "activated": True,
        "last_login": "2026-01-05 08:45:56",
        "created": "2022-11-13 09:16:26",
        "modified": "2026-01-05 08:45:56",
        "has_created_company": True,
        "access": [
            {"app": app, "admin": user.admin, "permission_set_id": f"62cc4d7f-4038-4352-abf3-a8c1c822b63{n}"}
            for n, app in enumerate(apps)
        ],
        "active_flag": True,
        "timezone_name": "Europe/London",
        "timezone_offset": "+00:00",
        "role_id": 1,
        "icon_url": None,
        "is_you": True,
        "is_deleted": False,
        "company_id": caller.company_id,
        "company_name": company.name,
        "company_domain": caller.company_domain,
        "company_country": "GB",
        "company_industry": "Wholesale",
        "language": {"language_code": "en", "country_code": "GB"},
    }
    return answers.plain({"success": True, "data": data})
