"""What the guide admits is not built: (heading, sentence, the part of the work that brings it).

A line leaves this table together with its sentence in docs/guide.md, when a test takes its place.
"""

from __future__ import annotations

NOT_YET: tuple[tuple[str, str, str], ...] = (
    (
        "User Identity",
        "a User without a known Person is looked up in Pipedrive by e-mail and the other identifiers.",
        "outgoing matching",
    ),
    ("User Identity", "a User that is not found in Pipedrive is created there.", "outgoing creation"),
    ("Outgoing Users", "attaching a Person to the Organization of the User's Account.", "outgoing links"),
    (
        "Account Identity",
        "an Account without a known Organization is looked up in Pipedrive by domain and the other identifiers.",
        "outgoing matching",
    ),
    ("Account Identity", "an Account that is not found in Pipedrive is created there.", "outgoing creation"),
    (
        "I don't see recently added/updated fields in Pipedrive",
        "sending them from the command line.",
        "the command `send`",
    ),
)
