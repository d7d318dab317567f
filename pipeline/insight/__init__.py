"""Questions that pages, commands and scripts ask alike: what a record is, why it is so, what has happened, what would.

Answers are frozen, made of plain values; nothing here knows how they are shown.
"""
