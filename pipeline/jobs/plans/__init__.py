"""Plans: what new settings would do to every known record, computed from stored data, without tokens.

create    a plan is validated like settings, and stored
compute   it is computed, slice by slice, by a worker, or by the request that created it if it is small
incoming  one slice of Pipedrive's records: what Hull would receive, by the transform and the page plan of load
outgoing  one slice of Hull's reports: what Pipedrive would receive, by the decisions of `pipeline.sync.outgoing`
apply     the settings are put in force, and the planned changes are made; changed records are left out and planned again
"""
