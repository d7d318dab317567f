"""Plans: what new settings would do to every known record, computed from stored data, without tokens.

create   check and store a plan; determine what it compares
preview  preview one slice of records, by the previews of `pipeline.sync`
compute  compute a plan slice by slice, in a worker or, if it is small, in the request that created it
apply    put the settings in force and make the planned changes; records that changed since are planned again
"""
