"""Measurements of whole flows; see docs/performance.md for what was seen. Never part of the tests."""
