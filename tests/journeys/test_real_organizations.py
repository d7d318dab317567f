"""Real organizations: many alphabets, several domains each, some names and domains more than once."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any
from urllib.parse import urlsplit

from publicsuffixlist import PublicSuffixList

from db.identifier import SEVERAL, SHARED
from pipeline import settings as settings_room
from pipeline.domain.kinds import Entity
from sandbox.company.load import load_jsonl
from tests.data import ORGANIZATIONS
from tests.system import SyncSystem


def test_every_real_organization_becomes_an_account_known_by_its_own_name_and_domain(system: SyncSystem) -> None:
    given = [json.loads(line) for line in ORGANIZATIONS.read_text(encoding="utf-8").splitlines()]
    settings_room.use(settings_room.settings().replace(page_limit=500))
    load_jsonl(system.company, ORGANIZATIONS)

    run = system.fetch(Entity.ORGANIZATION)

    assert (run.state, run.new) == ("done", len(given))
    accounts = system.accounts()
    assert Counter(account["pipedrive/name"] for account in accounts.values()) == Counter(row["name"] for row in given)
    assert sum(1 for account in accounts.values() if not account["pipedrive/name"].isascii()) > 400

    domains = [domain for domain in map(registrable_first_domain, given) if domain]
    rows = system.rows("SELECT value, pipedrive_id FROM identifiers WHERE role = 'holder'")
    held = {row.value: row.pipedrive_id for row in rows}
    shared = {domain for domain, givers in Counter(domains).items() if givers >= SEVERAL}
    known = {account["domain"] for account in accounts.values() if account.get("domain")}
    assert set(held) == set(domains)
    assert {domain for domain, holder in held.items() if holder == SHARED} == shared
    assert set(domains) - shared <= known <= set(domains)
    skipped = system.rows("SELECT pipedrive_id, detail FROM sync_events WHERE reason = 'duplicate_claim'")
    holders = set(held.values()) - {SHARED}
    of_pairs = [row for row in skipped if int(row.detail.rsplit(" ", 1)[1]) in holders]  # others came before the third
    assert len(of_pairs) == sum(1 for givers in Counter(domains).values() if givers == 2)
    assert all(row.pipedrive_id not in holders for row in skipped)

    endings_that_are_no_more = 2  # .yu and .an
    assert (run.failed, run.rejected_fields) == (0, endings_that_are_no_more)
    assert len(given) - len(domains) == endings_that_are_no_more


SUFFIXES = PublicSuffixList(accept_unknown=False)


def registrable_first_domain(row: dict[str, Any]) -> str | None:
    """Return the registrable domain of the first web page, by the public suffix list alone."""
    host = urlsplit(row["web_pages"][0].strip()).hostname
    return SUFFIXES.privatesuffix(host) if host else None
