"""Celery: the app, the canvases and the tasks. Each task calls a function of `pipeline.sync` or `pipeline.jobs`."""
