"""Plans: what new settings would do to every known record, computed from stored data, without tokens.

create   a plan is validated like settings, and stored; what it compares
preview  one slice of records: what Hull or Pipedrive would receive, by the previews of `pipeline.sync`
compute  it is computed, slice by slice, by a worker, or by the request that created it if it is small
apply    the settings are put in force, and the planned changes are made; changed records are left out and planned again
"""
