"""Replay failures, many at a time and without harm.

preview          what a replay of failures would do now, from stored data
preview_records  the same for one record, incoming or outgoing
start            replay one failure, or start a replay of many
advance          the job that sends the items at the set pace and records their outcomes
"""
