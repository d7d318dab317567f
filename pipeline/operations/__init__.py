"""Operations: what people and scripts may do and request, each once, for the console, `/api/v1` and the command line.

registry   the declaration of an operation, and what a call does: role, connector, audit entry
call       the caller, and the transaction with the audit entry
models     request and answer models that several subjects share; `values` their field types
errors     errors as every surface shows them; `refusals` converts errors of the lower layers
catalogue  all operations; each other module is a subject
"""
