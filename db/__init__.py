"""SQL: tables and all queries, one subject per file."""
