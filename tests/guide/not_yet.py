"""What the guide admits is not built: (heading, sentence, the part of the work that brings it).

A line leaves this table together with its sentence in docs/guide.md, when a test takes its place.
"""

from __future__ import annotations

NOT_YET: tuple[tuple[str, str, str], ...] = (
    ("Add a new Pipedrive Connector", "creating the connector by Hull's first notification.", "setup from Hull"),
    (
        "User Identity",
        "a User without a known Person is looked up in Pipedrive by e-mail and the other identifiers.",
        "outgoing matching",
    ),
    ("User Identity", "a User that is not found in Pipedrive is created there.", "outgoing creation"),
    ("Incoming Users", 'the button for Persons under "Actions".', "setup from Hull"),
    ("Outgoing Users", "attaching a Person to the Organization of the User's Account.", "outgoing links"),
    (
        "Account Identity",
        "an Account without a known Organization is looked up in Pipedrive by domain and the other identifiers.",
        "outgoing matching",
    ),
    ("Account Identity", "an Account that is not found in Pipedrive is created there.", "outgoing creation"),
    ("Incoming Accounts", 'the button for Organizations under "Actions".', "setup from Hull"),
    (
        "I didn't get any updates from recently updated Persons or Organizations into Hull",
        'the buttons "Fetch All Persons" and "Fetch All Organizations".',
        "setup from Hull",
    ),
    (
        "I don't see recently added/updated fields in Pipedrive",
        "sending them from the command line.",
        "the command `send`",
    ),
)
