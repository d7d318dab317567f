"""Plans: what new settings would do to every known record, computed from stored data, without tokens.

create   checks and stores a plan, and determines what it compares.
preview  previews one slice of records, by the previews of `pipeline.sync`.
compute  computes a plan slice by slice, in a worker or, if it is small, in the request that created it.
apply    puts the settings in force and makes the planned changes. Records that changed since are planned again.
"""
