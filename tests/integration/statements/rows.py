"""A database with a hundred thousand records, without statistics until `analyze` is called."""

from __future__ import annotations

from typing import Final

import zstandard
from sqlalchemy import Engine, text

from db.statement import driver_connection

RECORDS: Final = 100_000
CONNECTOR: Final = 1
RECORD: Final = "\\x" + zstandard.compress(b"{}").hex()

STEPS: Final = (
    "INSERT INTO connectors (key, id, name, hull_organization, company_id, authorised_by, created_at)"
    " SELECT n, 'c' || n, 'name' || n, 'o' || n || '.hullapp.io', n, n, now() - interval '20 days' FROM generate_series(1, 3) n",
    "INSERT INTO settings_versions (connector_key, version, document, author)"
    " SELECT k, n, '{}', 'test' FROM generate_series(1, 3) k, generate_series(1, 300) n",
    "INSERT INTO credentials (connector_key, name, ciphertext) SELECT k, name, '' FROM generate_series(1, 3) k,"
    " unnest(ARRAY['hull_secret', 'pipedrive_api_token', 'webhook_path']) name",
    "INSERT INTO field_definitions (connector_key, entity, rows) SELECT k, e, '[]' FROM generate_series(1, 3) k,"
    " unnest(ARRAY['person', 'organization']) e",
    "INSERT INTO runs (connector_key, entity, kind, cause, settings_version, state, started_at, finished_at)"
    " SELECT 1 + n % 3, CASE n % 2 WHEN 0 THEN 'person' ELSE 'organization' END, 'incremental', 'schedule', 1, 'done',"
    " now() - make_interval(mins => 5 * n), now() - make_interval(mins => 5 * n - 1) FROM generate_series(1, 20000) n",
    "INSERT INTO runs (id, connector_key, entity, kind, cause, settings_version, state, started_at, pages)"
    " VALUES (100001, 1, 'person', 'full', 'test', 1, 'running', now() - interval '1 minute', 200)",
    "INSERT INTO slices (id, run_id, walk) SELECT n, 1 + n % 20000, 'ascending' FROM generate_series(1, 40000) n",
    "INSERT INTO slices (id, run_id, walk) VALUES (100001, 100001, 'ascending'), (100002, 100001, 'descending')",
    "INSERT INTO batches (id, connector_key, direction, entity, queue, state, run_id, slice_id, created_at)"
    " SELECT n, 1 + n % 3, 'incoming', 'person', 'bulk', CASE WHEN n % 1000 = 0 THEN 'failed' ELSE 'done' END, 1 + n % 20000,"
    " n % 40000 + 1, now() - make_interval(secs => 30 * (100000 - n)) FROM generate_series(1, {n}) n",
    "INSERT INTO batches (id, connector_key, direction, entity, queue, state, run_id, slice_id, stage, enqueued_at)"
    " SELECT 200000 + n, 1, 'incoming', 'person', 'bulk', CASE n % 4 WHEN 0 THEN 'ready' WHEN 1 THEN 'running' ELSE 'waiting' END,"
    " 100001, 100001, 'extract', NULL FROM generate_series(1, 400) n",
    "UPDATE batches SET lease_token = gen_random_uuid(), lease_until = now() + interval '1 minute' WHERE state = 'running'",
    "INSERT INTO page_ids (run_id, batch_id, ids) SELECT 100001, n, ARRAY(SELECT 500 * (n - 1) + i FROM generate_series(1, 500) i)"
    " FROM generate_series(1, {n} / 500) n",
    "INSERT INTO page_ids (run_id, batch_id, ids) SELECT 1 + n % 20000, n, ARRAY[n] FROM generate_series(1, 200) n",
    "INSERT INTO id_mappings (connector_key, entity, pipedrive_id, hull_id, state, version, digest, delivered, matched_by,"
    " first_seen_at, resolve_at)"
    " SELECT 1, 'person', n, CASE WHEN n % 3 > 0 THEN 'h' || n END, CASE WHEN n % 500 = 7 THEN 'conflict' ELSE 'full' END, n,"
    " md5(n::text), '{}', 'fetched', now() - interval '1 day', CASE WHEN n % 3 = 0 THEN now() - interval '1 minute' END"
    " FROM generate_series(1, {n}) n",
    "INSERT INTO id_mappings (connector_key, entity, pipedrive_id, hull_id, state, version, digest, matched_by, first_seen_at)"
    " SELECT 1, 'organization', n, CASE WHEN n % 3 > 0 THEN 'a' || n END, CASE WHEN n % 10 = 0 THEN 'shell' ELSE 'full' END, n,"
    " md5(n::text), 'fetched', now() - interval '1 day' FROM generate_series(1, {n} / 5) n",
    "INSERT INTO id_mappings (connector_key, entity, hull_id, state, matched_by, intent_at)"
    " SELECT 1, 'person', 'i' || n, CASE n % 2 WHEN 0 THEN 'creating' ELSE 'unknown' END, 'created', now()"
    " FROM generate_series(1, 1000) n",
    "INSERT INTO id_mappings (connector_key, entity, pipedrive_id, state, matched_by, merged_into, deleted_at, awaits_account)"
    " SELECT 2, 'person', n, CASE n % 3 WHEN 0 THEN 'merged' WHEN 1 THEN 'deleted' ELSE 'full' END, 'fetched',"
    " CASE n % 3 WHEN 0 THEN n + 1 END, CASE n % 3 WHEN 1 THEN now() - interval '60 days' END, CASE n % 3 WHEN 2 THEN 'a' || n END"
    " FROM generate_series(1, 3000) n",
    "INSERT INTO identifiers (role, connector_key, entity, kind, value, pipedrive_id, wanted_by)"
    " SELECT 'holder', 1, 'person', 'email', 'p' || n || '@example.com', n, CASE WHEN n % 100 = 0 THEN n + 1 END"
    " FROM generate_series(1, {n}) n",
    "INSERT INTO identifiers (role, connector_key, entity, kind, value, pipedrive_id)"
    " SELECT 'holder', 1, 'organization', 'domain', 'd' || n || '.example', n FROM generate_series(1, {n} / 5) n",
    "INSERT INTO identifiers (role, connector_key, entity, kind, value, pipedrive_id)"
    " SELECT 'holder', 2, 'person', 'email', 'q' || n || '@example.com', n FROM generate_series(1, 3000) n",
    "UPDATE id_mappings SET state = 'deleted' WHERE connector_key = 1 AND entity = 'person' AND pipedrive_id IN (61, 64, 67, 70)",
    "UPDATE id_mappings SET intent_at = now() - interval '5 minutes' WHERE connector_key = 1 AND entity = 'person'"
    " AND hull_id IS NOT NULL AND state = 'full' AND pipedrive_id < 1000",
    "UPDATE id_mappings SET first_seen_at = now() - interval '4 minutes' WHERE connector_key = 1 AND entity = 'person'"
    " AND pipedrive_id BETWEEN 2000 AND 3000",
    "INSERT INTO identifiers (role, connector_key, entity, kind, value, pipedrive_id)"
    " SELECT 'alias', 1, 'person', 'email', 'p' || n || '@example.com', 2000 + n FROM generate_series(1, 500) n",
    "INSERT INTO identifiers (role, connector_key, entity, kind, value, pipedrive_id)"
    " SELECT 'alias', 1, 'person', 'email', 'x' || n || '@example.com', n FROM generate_series(1, {n}) n",
    "INSERT INTO identifiers (role, connector_key, entity, kind, value, pipedrive_id)"
    " SELECT 'holder', 1, 'person', 'email', 'second' || pipedrive_id, pipedrive_id"
    " FROM identifiers WHERE role = 'holder' AND connector_key = 1 AND entity = 'person'",
    "INSERT INTO identifiers (role, connector_key, entity, kind, value, pipedrive_id)"
    " SELECT 'holder', 1, 'organization', 'domain', 'shared' || n || '.example', 0 FROM generate_series(1, 300) n",
    "INSERT INTO identifiers (role, connector_key, entity, kind, value, pipedrive_id)"
    " SELECT 'alias', 1, 'organization', 'domain', 'shared' || n || '.example', 10 * n + more"
    " FROM generate_series(1, 300) n, generate_series(1, 2 + n % 2) more",
    "INSERT INTO newest_webhooks (connector_key, entity, pipedrive_id, sent_at_ms, is_deleted, delivery_id, noted_at)"
    " SELECT 1, 'person', n, 1, false, n, now() - make_interval(hours => n % 30) FROM generate_series(1, {n}) n",
    "INSERT INTO identifiers (role, connector_key, entity, kind, value, hull_id)"
    " SELECT 'reserved', 1, 'person', 'email', 'i' || n || '@example.com', 'i' || n FROM generate_series(1, 1000) n",
    "INSERT INTO snapshots (connector_key, entity, side, record_id, version, payload)"
    " SELECT 1, 'person', 'pipedrive', n, n, '{record}' FROM generate_series(1, {n}) n",
    "INSERT INTO snapshots (connector_key, entity, side, record_id, version, payload)"
    " SELECT 1, 'person', 'hull', 'h' || n, n, '{record}' FROM generate_series(1, {n}) n",
    "INSERT INTO sync_events (at, connector_key, event, entity, reason, pipedrive_id, hull_id, run_id, batch_id, cause, after)"
    " SELECT now() - make_interval(secs => ({n} - n) / 2), 1, CASE WHEN n % 50 = 0 THEN 'incoming.user.error' WHEN n % 20 = 0 THEN"
    " 'outgoing.user.success' ELSE 'incoming.user.success' END, 'person', CASE WHEN n % 50 = 0 THEN 'option_unknown' END,"
    " n, 'h' || n, 100001, n, 'fetch', '{}' FROM generate_series(1, {n}) n",
    "INSERT INTO event_count_mark VALUES (1, now() - interval '2 minutes', 1, now() - interval '1 minute', 1)",
    "INSERT INTO event_counts (connector_key, at, event, reason, n) SELECT 1 + n % 3, now() - make_interval(mins => n),"
    " 'incoming.user.success', '', 1 FROM generate_series(1, 50000) n",
    "INSERT INTO event_totals (connector_key, event, n) SELECT connector_key, event, sum(n) FROM event_counts GROUP BY 1, 2",
    "INSERT INTO changes (connector_key, direction, entity, record_id, cause, batch_id, claimed_revision)"
    " SELECT 1, CASE n % 2 WHEN 0 THEN 'incoming' ELSE 'outgoing' END, 'person', CASE n % 2 WHEN 0 THEN n::text ELSE 'h' || n END,"
    " 'webhook', CASE WHEN n % 4 = 0 THEN n END, CASE WHEN n % 4 = 0 THEN 1 END FROM generate_series(1, {n}) n",
    "INSERT INTO changes (connector_key, direction, entity, record_id, cause, due_at)"
    " SELECT 2, 'incoming', 'organization', n, 'webhook', now() - make_interval(secs => n % 1000) FROM generate_series(1, {n}) n",
    "INSERT INTO deliveries (connector_key, source, key, body, state, received_at)"
    " SELECT 1 + n % 2, CASE n % 2 WHEN 0 THEN 'hull' ELSE 'pipedrive' END, n, '{}',"
    " CASE WHEN n % 20 = 0 THEN 'new' ELSE 'processed' END, now() - make_interval(secs => {n} - n) FROM generate_series(1, {n}) n",
    "INSERT INTO jobs (connector_key, kind, dedupe_key, state, ended_at) SELECT 1, 'status', n,"
    " CASE WHEN n % 10 = 0 THEN 'due' ELSE 'done' END, CASE WHEN n % 10 > 0 THEN now() END FROM generate_series(1, 20000) n",
    "INSERT INTO job_items (job_id, subject, n, payload) SELECT 1 + n / 200, 'person.seen', n % 200, '{record}'"
    " FROM generate_series(0, {n} - 1) n",
    "INSERT INTO export_files (job_id, validator, size_bytes, pieces) SELECT id, 'one', 200, 20 FROM jobs WHERE id <= 5000",
    "INSERT INTO export_pieces (job_id, number, content) SELECT 1 + n / 20, n % 20, '{record}'"
    " FROM generate_series(0, {n} - 1) n",
    "INSERT INTO log_exports (id, connector_key, kind, file_name, requested_by, state, parts, created_at)"
    " SELECT n, 1 + n % 2, 'text/csv', 'f', 'a', CASE n % 50 WHEN 0 THEN 'writing' ELSE 'done' END, 100,"
    " now() - make_interval(hours => n) FROM generate_series(1, 1000) n",
    "INSERT INTO log_export_parts (export_id, n, body)"
    " SELECT e, n, 'lines' FROM generate_series(1, 1000) e, generate_series(0, 99) n",
    "INSERT INTO failures (connector_key, kind, subject, direction, entity, record_id, batch_id, run_id, stage, reason, detail,"
    " fingerprint, state)"
    " SELECT 1, 'record', 'incoming:person:' || n, 'incoming', 'person', n, n, CASE WHEN n % 100 = 0 THEN 100001 END, 'transform',"
    " 'option_unknown', '', 'f' || n % 20, CASE WHEN n % 5 = 0 THEN 'open' ELSE 'replayed' END FROM generate_series(1, {n}) n",
    "INSERT INTO failures (connector_key, kind, subject, direction, entity, batch_id, stage, reason, detail, fingerprint, state,"
    " updated_at) SELECT 1, 'batch', 'batch:' || n, 'incoming', 'person', n, 'load', 'x', '', '', 'discarded',"
    " now() - interval '100 days' FROM generate_series(1000, 20000, 1000) n",
    "INSERT INTO replays (id, connector_key, requested_by, why, chosen, per_second) SELECT n, 1, 'a', '', '{}', 10"
    " FROM generate_series(1, 50) n",
    "INSERT INTO replay_items (replay_id, failure_id, state, sent_at, after_event) SELECT 1 + n % 50, n,"
    " CASE n % 3 WHEN 0 THEN 'waiting' WHEN 1 THEN 'sent' ELSE 'done' END, now(), 1 FROM generate_series(1, 50000) n",
    "INSERT INTO plans (id, connector_key, base_version, document, definitions, author)"
    " SELECT n, 1, 1, '{}', '{}', 'a' FROM generate_series(1, 5) n",
    "INSERT INTO plan_items (plan_id, direction, entity, record_id, pipedrive_id, act, version, digest)"
    " SELECT 1, 'incoming', 'person', n, n, 'change', n, md5(n::text) FROM generate_series(1, {n}) n",
    "INSERT INTO plan_items (plan_id, direction, entity, record_id, act)"
    " SELECT 1, 'outgoing', 'person', 'h' || n, 'create' FROM generate_series(1, {n}) n",
    "INSERT INTO plan_claims (plan_id, entity, claim, value, record_id)"
    " SELECT 1, 'person', 'email', 'p' || n || '@example.com', 'h' || n FROM generate_series(1, {n}) n",
    "INSERT INTO alerts (connector_key, rule, sentence, state, sent_state, resolved_at) SELECT 1, 'rule' || n, '',"
    " CASE WHEN n % 50 = 0 THEN 'open' ELSE 'resolved' END, CASE WHEN n % 2 = 0 THEN 'resolved' END, now()"
    " FROM generate_series(1, 5000) n",
    "INSERT INTO audit_log (operator, connector_key, action, subject) SELECT 'a', 1, 'did', n FROM generate_series(1, 20000) n",
    "INSERT INTO token_ledger (connector_key, day, lane, operation, calls, tokens) SELECT k, current_date - d, lane, 'list', 1, 20"
    " FROM generate_series(1, 3) k, generate_series(0, 400) d, unnest(ARRAY['live', 'control', 'bulk', 'verify']) lane",
    "INSERT INTO hourly_counts (connector_key, hour, events) SELECT k, date_trunc('hour', now()) - make_interval(hours => h), 10"
    " FROM generate_series(1, 3) k, generate_series(2, 336) h",
    "INSERT INTO watermarks (connector_key, entity, reached_at, complete_since, fully_read_at) SELECT k, e, now(), now(), now()"
    " FROM generate_series(1, 3) k, unnest(ARRAY['person', 'organization']) e",
    "INSERT INTO webhook_subscriptions (connector_key, entity, state, healthy_at) SELECT k, e, 'active', now()"
    " FROM generate_series(1, 3) k, unnest(ARRAY['person', 'organization']) e",
    "INSERT INTO schedules (connector_key, kind, interval_s, next_run_at) SELECT k, 'incremental', 300, now()"
    " FROM generate_series(1, 3) k",
    "INSERT INTO last_skips (connector_key, entity, hull_id, reason) SELECT 1, 'person', 'h' || n, 'filtered'"
    " FROM generate_series(1, {n}) n",
    "INSERT INTO verifications (connector_key, requested_by, drift, took_s, tokens, counts, named)"
    " SELECT 1, 'a', 0, 0, 0, '{}', '{}' FROM generate_series(1, 2000) n",
    "INSERT INTO operators (id, name, password_hash, role) SELECT n, 'o' || n, '', 'admin' FROM generate_series(1, 50) n",
    "INSERT INTO operator_sessions (digest, operator_id) SELECT sha256(n::text::bytea), 1 + n % 50 FROM generate_series(1, 2000) n",
    "INSERT INTO api_keys (operator_id, name, digest, role, expires_at)"
    " SELECT 1 + n % 50, n, sha256(n::text::bytea), 'admin', now() FROM generate_series(1, 200) n",
    "INSERT INTO login_attempts (name_digest, place_digest, failures, last_at)"
    " SELECT sha256(n::text::bytea), 'p', 1, now() - make_interval(secs => n * 8) FROM generate_series(1, 20000) n",
)

_NO_AUTOVACUUM = text("""
    SELECT format('ALTER TABLE %I SET (autovacuum_enabled = off)', relname) FROM pg_class
     WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace""")
_COUNT_ON = text("""
    SELECT setval(format('%I.%I', schemaname, sequencename)::regclass, 10000000) FROM pg_sequences""")


def fill(engine: Engine, records: int = RECORDS) -> None:
    """Fill the tables, without statistics."""
    with engine.begin() as connection:
        for (statement,) in connection.execute(_NO_AUTOVACUUM).all():
            connection.exec_driver_sql(statement)
    with engine.begin() as connection:
        cursor = driver_connection(connection).cursor()
        for step in STEPS:
            cursor.execute(step.replace("{n}", str(records)).replace("{record}", RECORD))
        connection.execute(_COUNT_ON)


def analyze(engine: Engine) -> None:
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql("ANALYZE")
