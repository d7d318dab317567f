"""Questions that pages and commands ask alike: what a record is, why it is so, what has happened.

Answers are frozen, made of plain values. Nothing here knows how they are shown.
"""
