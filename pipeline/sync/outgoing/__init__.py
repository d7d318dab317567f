"""The stages of outgoing batches, from Hull to Pipedrive.

`extract` finds each report's record through `resolve`. `transform` decides what is written. `load` looks records up before it
creates them (`matching`, `lookup`), checks the writes (`write_checks`), writes, and postpones what failed (`requeue`). `event_log`
records the outcomes. `preview` computes all of this for a report without calls.
"""
