"""Operations: what people and scripts may do and request, each once, for the console, `/api/v1` and the command line.

registry   the declaration of an operation, and what a call does: role, connector, audit entry
call       the caller, and the transaction with the audit entry
models     field types, and request and answer models, that several subjects share
errors     errors as every surface shows them, and how errors of the lower layers become such errors
catalogue  all operations, by subject

A subject is a module with its operations and their answers. The others help several subjects or keep one readable: `condition`,
`conversions`, `edited_payloads`, `explanations` and `explanation_steps`, `mapped_fields`, `plan_answers`, `record_sides`,
`replay_preview`, `run_progress`, `search`, `settings_differences`, `settings_editing`; `cached_answers` shares answers
between viewers.
"""
