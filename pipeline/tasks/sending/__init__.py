"""Outgoing, from Hull to Pipedrive: one file per step of the journey, in the order in which a record meets them.

candidates  extract: each report beside the record it is joined to
decisions   transform: skipped, held, updated or created
differing   transform: of a record that is known, what is written and what is left
matching    load: look-ups before anything is created
rereading   load: a look at what Pipedrive has a say about
aftermath   load: what became of it, written down in one transaction
story       events and log lines
"""
