"""Replay failures, many at a time and without harm.

preview          shows what a replay of failures would do now, from stored data.
preview_records  does the same for one record, incoming or outgoing.
start            replays one failure, or starts a replay of many.
advance          sends the items at the set pace and records their outcomes, in a job.
"""
