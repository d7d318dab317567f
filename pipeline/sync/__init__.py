"""The engine: how stages, runs, changes and connectors move. Nothing here is a Celery task."""
