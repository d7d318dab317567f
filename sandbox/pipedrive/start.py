"""Make company and app from plain options, for a process of its own (`sandbox.serve`)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sandbox.company import Company
from sandbox.company.load import load_jsonl
from sandbox.company.model import RunningClock
from sandbox.pipedrive.access import API_TOKEN
from sandbox.pipedrive.app import PipedriveApp, create_app
from sandbox.pipedrive.oauth import Client

FACTORY = "sandbox.pipedrive.start:make_app"


@dataclass(frozen=True, slots=True, kw_only=True)
class AppOptions:
    """What an app is made from; every value survives JSON.

    `load` is a file of records, `faults` one of rules. `firmographics` off leaves Organizations without `website` and the
    fields that come with it. `daily_budget` is tokens a day. Company time starts `clock_behind_s` before the present and passes
    `clock_factor` times as fast as real time. `prebuilt` generates every body at the
    start instead of when it is read.
    """

    seed: int = 1
    persons: int = 1000
    organizations: int = 200
    api_token: str = API_TOKEN
    client_id: str = Client().id
    client_secret: str = Client().secret
    burst_limit: int | None = None
    daily_budget: int | None = None
    clock_factor: float = 1.0
    clock_behind_s: float = 0.0
    firmographics: bool = True
    load: str | None = None
    faults: str | None = None
    prebuilt: bool = False


def make_app(**options: Any) -> PipedriveApp:
    """Build the app from the members of `AppOptions`. Raises: TypeError for any other."""
    given = AppOptions(**options)
    company = Company(
        seed=given.seed,
        persons=given.persons,
        organizations=given.organizations,
        firmographics=given.firmographics,
        clock=RunningClock(factor=given.clock_factor, behind_s=given.clock_behind_s),
    )
    if given.load is not None:
        load_jsonl(company, given.load)
    if given.prebuilt:
        company.prebuild_bodies()
    app = create_app(
        company,
        api_token=given.api_token,
        burst_limit=given.burst_limit,
        client=Client(id=given.client_id, secret=given.client_secret),
    )
    app.budget.limit = given.daily_budget
    app.delivery.schedule.clock_factor = given.clock_factor
    if given.faults is not None:
        app.faults.load(given.faults)
    return app
