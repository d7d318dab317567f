"""Send the sales team to work and see what it did: GET and POST /__sandbox__/team."""

from __future__ import annotations

from dataclasses import asdict

from flask import Response

from sandbox.pipedrive import answers, members
from sandbox.pipedrive.records import json_object
from sandbox.pipedrive.team import SalesTeam, Weights


def show(team: SalesTeam) -> Response:
    """Tell the pace, the weights, and how often each deed was done."""
    body = {"rate": team.rate_per_s, "weights": asdict(team.weights), "counts": dict(team.counts)}
    return answers.plain({"success": True, "data": body})


def set_to_work(team: SalesTeam) -> Response:
    """Have the team act {rate} times a second, 0 to stop; {weights?, seed?} change what it does."""
    body = json_object()
    try:
        rate = members.number(body.get("rate"), "rate")
        if rate < 0:
            raise ValueError("rate: must not be negative")
        weights = members.read(Weights, body["weights"]) if "weights" in body else team.weights
    except ValueError as error:
        raise answers.invalid(str(error)) from error
    team.weights = weights
    if "seed" in body:
        team.reseed(str(body["seed"]))
    if rate > 0:
        team.start(rate)
    else:
        team.stop()
    return show(team)
