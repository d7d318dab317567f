"""Queries that pages, commands and scripts share: a record, its explanation, past events, and previews.

Results are frozen and made of plain values; this package does not know how they are shown.
"""
