"""Fetches: when they start, how they end, and what a complete one proves."""
