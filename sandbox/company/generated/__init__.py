"""Persons and Organizations that follow from a seed."""
