"""Plans: what new settings would do to every known record, found out from what is stored, at no token.

making     a plan is written down, and checked as if its settings were to be put in force
walking    it is computed, slice by slice, by whoever comes: a worker, or the request that made it when it is small
arriving   one slice of Pipedrive's records: what Hull would be told, by the transform and the page plan of load
leaving    one slice of Hull's reports: what Pipedrive would be sent, by the decisions of `pipeline.sync.outgoing`
applying   the settings come in force, and what the plan says is done; what moved is left out and planned anew
"""
