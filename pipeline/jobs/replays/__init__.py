"""Replaying what gave up, many at a time and without harm.

foreseeing  what would become of a failure if it were replayed now, from what is stored
beginning   how a replay begins, pauses, goes on and ends
advancing   the job that sends its items at their pace
settling    what became of those that were sent
"""
