"""From Pipedrive to Hull: the three stages of a batch, and what follows from records that are gone, stale or refused."""
