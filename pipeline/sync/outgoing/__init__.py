"""Outgoing, from Hull to Pipedrive: one file per step, in the order in which a record meets them.

extracting      extract: each report beside the record it is joined to
candidates      what our tables know of the records that some reports are about
asking          whose a record is, where only Hull can tell
decisions       transform: skipped, held, updated or created
differing       transform: of a record that is known, what is written and what is left
matching        load: what is to be made is looked up first
lookup          the look-up itself: staged, listed, indexed, searched
listing         the fetch that records wait for which cannot be looked up otherwise
looking         what a record is known by, for all of these
rereading       load: a look at what Pipedrive has a say about
held_elsewhere  load: identifying values that another record holds are left out
aftermath       load: what became of it, written down in one transaction
later           load: what could not be sent is put back
story           events and log lines
"""
