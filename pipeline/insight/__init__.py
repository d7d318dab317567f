"""Questions and decisions that pages, the command line and the API share, answered in plain values. SQL stays in `db`."""
