from __future__ import annotations

import pytest

from sandbox.hull.app import create_app
from tests.contract.hull.sender import CONNECTOR_ID, NOW, SECRET, Hull


@pytest.fixture
def hull() -> Hull:
    app = create_app(connector_id=CONNECTOR_ID, secret=SECRET, organization="acme.hull.test")
    state = app.extensions["hull"]
    state.clock = lambda: NOW
    return Hull(app, state)
