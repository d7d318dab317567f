"""Verify: compare Pipedrive, Hull and the id map, and repair what drifted."""
