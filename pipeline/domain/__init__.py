"""Immutable values that every package may use."""
