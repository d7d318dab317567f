"""Pipedrive, as far as Persons and Organizations go: an HTTP server over a generated company."""
