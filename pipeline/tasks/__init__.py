"""Journeys: the only room that knows Celery. Each task claims a batch, enters the other rooms, and writes the result down."""
