"""Outgoing, from Hull to Pipedrive: one file per step of the journey, in the order in which a record meets them.

candidates  extract: each report beside the record it is joined to
decisions   transform: skipped, held, updated or created, and what is written
matching    load: look-ups before anything is created
aftermath   load: what became of it, written down in one transaction
story       events and log lines
"""
