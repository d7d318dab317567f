"""Celery's settings, as data. What they guard against is measured in docs/decisions/0002-work-exists-only-in-postgresql.md."""

from __future__ import annotations

from kombu import Exchange, Queue

from pipeline.settings import settings

broker_url = settings().broker_url
result_backend = None
task_ignore_result = True
task_store_errors_even_if_ignored = False

accept_content = ["json"]
task_serializer = "json"
result_accept_content = ["json"]

# The row decides about retries. The message is acknowledged late, so that the broker delivers it again after a lost worker.
task_acks_late = True
task_reject_on_worker_lost = False
task_retry_on_worker_lost = True
task_acks_on_failure = True
task_acks_on_timeout = True
task_soft_time_limit = 240
task_time_limit = 300

worker_prefetch_multiplier = 1
worker_max_tasks_per_child = 20_000
worker_max_memory_per_child = 240_000  # KiB
worker_eta_task_limit = 1000
# Rows and leases decide which worker may write, so a task may continue without the broker; killing it would cost a lease.
worker_cancel_long_running_tasks_on_connection_loss = False
worker_soft_shutdown_timeout = 10
worker_enable_soft_shutdown_on_idle = True
worker_hijack_root_logger = False
worker_redirect_stdouts = False

broker_connection_retry_on_startup = True
broker_connection_max_retries = None
broker_transport_options = (
    {"confirm_publish": True, "read_timeout": 3, "write_timeout": 3}
    if str(broker_url).startswith(("amqp", "pyamqp"))
    else {
        "visibility_timeout": 900,
        "unacked_mutex_expire": 30,
        "unacked_restore_interval": 10,
        "unacked_restore_throttle": 1,
        "unacked_restore_limit": 500,
        "socket_timeout": 5,
        "socket_connect_timeout": 3,
        "socket_keepalive": True,
        "health_check_interval": 5,
        "global_keyprefix": "p2h:",
    }
)
# Do not wait for a broker on a dead host. RabbitMQ must answer (also a publisher's confirm) within 3 s; two missed heartbeats end a
# consumer's connection (12 to 14 s); a Redis consumer's ends after 6 to 11 s. The sweep finds what was not published.
# docs/performance.md has the drill.
broker_heartbeat = 6
broker_connection_timeout = 4
task_publish_retry_policy = {"max_retries": 1, "interval_start": 0, "interval_step": 0.2, "interval_max": 0.5}

worker_send_task_events = True
# Flower shows when a task was received. Events about sending would be three more messages per batch.
task_send_sent_event = False
task_track_started = True
beat_enable_remote_control = True

task_queues = [Queue(name, Exchange(name), routing_key=name) for name in ("live", "bulk", "control")]
task_default_queue = "control"
task_default_exchange = "control"
task_default_routing_key = "control"
task_create_missing_queues = False
imports = ("pipeline.tasks.incoming", "pipeline.tasks.outgoing", "pipeline.tasks.control")

# Beat only ticks. What is due is decided and claimed in SQL, so two beats, or a late one, change nothing.
beat_schedule = {
    "sweep": {
        "task": "control.sweep",
        "schedule": settings().sweep_s,
        "options": {"expires": 10, "headers": {"ticked_by": "beat"}},
    },
    "start_scheduled": {"task": "control.start_scheduled", "schedule": 30.0, "options": {"expires": 30}},
    "fill_shells": {"task": "control.fill_shells", "schedule": 30.0, "options": {"expires": 30}},
    "resolve_hull_ids": {"task": "control.resolve_hull_ids", "schedule": 30.0, "options": {"expires": 30}},
    "ensure_webhooks": {"task": "control.ensure_webhooks", "schedule": 900.0, "options": {"expires": 600}},
    "find_duplicates": {"task": "control.find_duplicates", "schedule": 600.0, "options": {"expires": 300}},
    "watch": {"task": "control.watch", "schedule": 60.0, "options": {"expires": 50}},
    "record_outcomes": {"task": "control.record_outcomes", "schedule": 10.0, "options": {"expires": 10}},
    "count_events": {"task": "control.count_events", "schedule": 10.0, "options": {"expires": 10}},
    "tidy": {"task": "control.tidy", "schedule": 3600.0, "options": {"expires": 600}},
}
beat_scheduler = "pipeline.tasks.beat:TickScheduler"
timezone = "UTC"
