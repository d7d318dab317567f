"""What a person or a script may do and ask: each operation once, for the console, `/api/v1` and the command line.

registry   the declaration of an operation, and what a call of one does: role, connector, audit entry
call       who calls, and the transaction that carries the audit entry
models     request and answer models that several subjects share; `values` the kinds of their fields
errors     why nothing was done, as every surface shows it; `refusals` turns errors of the modules below into it
catalogue  all operations; each other module is a subject
"""
