"""Operations: what people and scripts may do and request, each once, for the console, `/api/v1` and the command line.

`registry` declares an operation: its models, role, route, command and audit action. `call` is one call of it, by one caller.
`errors` holds the errors that all surfaces show, `models` the fields and models that several subjects share.

A subject is a module with its operations and their answers; `catalogue` lists them. All other modules are helpers of subjects.
"""
