#!/bin/sh
# Run once by PostgreSQL's image, on an empty volume: a role and a database for the pipeline. The role is no superuser; the grant lets
# its sessions keep values of records out of the server's log (docs/configuration.md).
set -eu
psql -v ON_ERROR_STOP=1 --no-psqlrc --username "$POSTGRES_USER" --dbname "${POSTGRES_DB:-postgres}" <<'SQL'
\set password `cat "${DATABASE_PASSWORD_FILE:-/run/secrets/database_password}"`
CREATE ROLE pipeline LOGIN PASSWORD :'password';
CREATE DATABASE pipeline OWNER pipeline;
REVOKE CONNECT ON DATABASE pipeline FROM PUBLIC;
GRANT SET ON PARAMETER log_min_messages, log_min_error_statement, log_error_verbosity, log_statement, log_min_duration_statement,
    log_min_duration_sample, log_transaction_sample_rate, log_parameter_max_length TO pipeline;
SQL
