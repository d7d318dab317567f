"""SQL: tables, and every question the pipeline asks of them, one subject a file."""
