"""The sandbox's own controls of what leaves and comes back, under /__sandbox__/: merge, undelete, purge; and `behaviour`."""

from __future__ import annotations

import dataclasses

from flask import Response, request

from sandbox.company import Company, Invalid
from sandbox.company.bodies import encode
from sandbox.pipedrive import answers
from sandbox.pipedrive.control import entity_of, turn
from sandbox.pipedrive.records import json_object


def merge(company: Company) -> Response:
    """Merge as somebody in the app would: {entity, id, merge_with_id}; the record that stayed."""
    body = json_object()
    try:
        record = company.merge(entity_of(body), body["id"], body["merge_with_id"], source="app")
    except Invalid as error:
        raise answers.invalid(str(error)) from error
    if record is None:
        raise answers.not_found()
    return answers.item(encode(record))


def undelete(company: Company) -> Response:
    """Bring a deleted record back: {entity, id}."""
    body = json_object()
    if not company.undelete(entity_of(body), body["id"]):
        raise answers.not_found()
    return answers.plain({"success": True})


def purge(company: Company) -> Response:
    """Forget what was deleted more than thirty days ago."""
    return answers.plain({"success": True, "data": {"purged": company.purge()}})


def behaviour(company: Company) -> Response:
    """Choose how the company behaves where the documentation is silent: members of `Behaviour`; answers with all of them."""
    if request.method == "POST":
        turn(company.behaviour, json_object())
    return answers.plain(dataclasses.asdict(company.behaviour))
