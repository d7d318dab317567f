"""Replay failures, many at a time and without harm.

preview   what a replay of a failure would do now, from stored data
start     start, pause, resume and abort a replay
advance   the job that sends its items at the set pace
outcomes  the outcomes of sent items
"""
