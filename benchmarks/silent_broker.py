"""The broker's host dies silently while a worker, beat and a web process run, and another host takes its address.

    python -m benchmarks.silent_broker [--broker redis|amqp] [--rounds 3] [--patience-s 60] [--json]

A proxy before the broker becomes silent; with `redis` it is also before the limits' Redis, which is the same server. Open
connections stay open, and their packets are acknowledged. Three seconds later new connections are served; the old ones stay
silent. Webhooks arrive at a steady pace all the time. Measured from the start of the silence: the time until a worker sends a new
webhook to Hull, until beat's ticks arrive, and until `/readyz` answers ok, and the slowest answer of each address.

Exit 1 if a recovery takes more than 30 s, if a webhook is lost, sent to Hull twice or answered after more than a second, or if
`/healthz` takes more than 0.1 s. `amqp` needs a RabbitMQ on this machine and `rabbitmqctl`; it uses its own virtual host.
"""

from __future__ import annotations

import argparse
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote, urlsplit

import requests

from benchmarks import drill, sink
from benchmarks.silent_database import Watch
from benchmarks.stage import Stage, stage, start_celery, start_worker
from benchmarks.tcp_proxy import TcpProxy
from benchmarks.webhook_intake import fetch, subscribe, webhook_bodies
from sandbox import serve
from sandbox.company import Company

RECOVERY_S, WEBHOOK_S, HEALTH_S = 30.0, 1.0, 0.1
"""Maximum times of a recovery, the answer to a webhook and an answer of /healthz."""
SILENT_S = 3.0
START_S = 120.0
GIVE_UP_S = 10.0
PER_S = 4.0
PERSONS = 2_000
SEED = 7
RABBITMQ = ("127.0.0.1", 5672)
POLL_S = 0.1


@dataclass(slots=True)
class Sender:
    """Posts one webhook after the other. posted  mark → time of sending; refused  marks without a 2xx"""

    url: str
    headers: dict[str, str]
    bodies: list[bytes]
    posted: dict[str, float] = field(default_factory=dict)
    refused: list[str] = field(default_factory=list)
    slowest_s: float = 0.0
    _ended: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        with requests.Session() as session:
            while self.bodies and not self._ended.wait(1 / PER_S):
                body = self.bodies.pop()
                mark = sink.MARK.findall(body)[0].decode()
                started = time.time()
                answer = None
                with suppress(requests.RequestException):
                    answer = session.post(self.url, body, headers=self.headers, timeout=GIVE_UP_S)
                self.slowest_s = max(self.slowest_s, time.time() - started)
                self.posted[mark] = started
                if answer is None or not answer.ok:
                    self.refused.append(mark)

    def restart(self) -> None:
        self.slowest_s = 0.0

    def end(self) -> None:
        self._ended.set()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--broker", choices=("redis", "amqp"), default="redis")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--patience-s", type=float, default=60.0)
    parser.add_argument("--json", action="store_true")
    chosen = parser.parse_args()
    if chosen.broker == "amqp" and not _has_rabbitmq():
        print("skipped: no RabbitMQ at 127.0.0.1:5672, or no rabbitmqctl")
        return 0
    port = serve.free_port()
    own = {"PUBLIC_URL": f"http://127.0.0.1:{port}", "PORT": str(port)}
    with stage(
        persons=PERSONS, organizations=0, hull=sink.FACTORY, worker_processes=1, seed=SEED, environment=own
    ) as running:
        fetch(running)
        hook = subscribe(running)
        company = Company(seed=SEED, persons=PERSONS, organizations=0)
        bodies = webhook_bodies(company, "silent", range(1, PERSONS // 2))
        os.killpg(running.roots["workers"], signal.SIGKILL)  # the drill starts its own
        with _processes(chosen.broker, port) as proxy:
            rounds = []
            for number in range(chosen.rounds):
                share = bodies[number :: chosen.rounds]
                rounds.append(_round(running, proxy, hook, share, chosen.patience_s))
                if number + 1 < chosen.rounds:
                    proxy.cut()  # silent connections would fill the server's limit
    is_good = all(_is_good(each) for each in rounds)
    if chosen.json:
        print(json.dumps({"broker": chosen.broker, "rounds": rounds, "ok": is_good}, indent=2))
    else:
        for number, each in enumerate(rounds, 1):
            print(f"round {number}: " + ", ".join(f"{name} {value}" for name, value in each.items()))
        print("recovers in time" if is_good else "DOES NOT RECOVER IN TIME")
    return 0 if is_good else 1


def _is_good(found: dict[str, Any]) -> bool:
    bounds = {"worker_s": RECOVERY_S, "beat_s": RECOVERY_S, "ready_s": RECOVERY_S} | {
        "webhook_s": WEBHOOK_S,
        "healthz_s": HEALTH_S,
        "lost": 0,
        "doubled": 0,
    }
    return all((value := found[name]) is not None and value <= most for name, most in bounds.items())


def _round(
    running: Stage, proxy: TcpProxy, hook: dict[str, str], bodies: list[bytes], patience_s: float
) -> dict[str, Any]:
    """Return the figures of one silence, in seconds from its start; None if there was no recovery within the patience."""
    base = hook["url"].split("/webhooks/")[0]
    health, ready = Watch(f"{base}/healthz", 0.1), Watch(f"{base}/readyz", 0.5)
    sender = Sender(hook["url"], {name: value for name, value in hook.items() if name != "url"}, bodies)
    began = time.time()
    threads = [threading.Thread(target=each.run, daemon=True) for each in (health, ready, sender)]
    threads[0].start()
    drill.wait_until(lambda: health.answered_at > 0, START_S, "the web process did not answer")
    for thread in threads[1:]:
        thread.start()
    drill.wait_until(
        lambda: _beat_at() > began and sender.posted.keys() & _arrived(running), START_S, "no webhook reached Hull"
    )
    for each in (health, ready, sender):
        each.restart()
    load = round(os.getloadavg()[0], 1)
    proxy.silence()
    silent_at, silent_mono = time.time(), time.monotonic()
    time.sleep(SILENT_S)
    proxy.replace()
    replaced_at, replaced_mono = time.time(), time.monotonic()
    back: dict[str, float | None] = {"worker_s": None, "beat_s": None, "ready_s": None}
    while None in back.values() and time.time() - silent_at < patience_s:
        time.sleep(POLL_S)
        since_s = round(time.time() - silent_at, 1)
        if back["worker_s"] is None:
            new = {mark for mark, at in list(sender.posted.items()) if at > silent_at}
            if any(at > replaced_at for mark, at in _arrived(running).items() if mark in new):
                back["worker_s"] = since_s
        if back["beat_s"] is None and _beat_at() > replaced_at:
            back["beat_s"] = since_s
        if back["ready_s"] is None and ready.answered_at > replaced_mono:
            back["ready_s"] = round(ready.answered_at - silent_mono, 1)
    for each in (health, ready, sender):
        each.end()
    for thread in threads:
        thread.join(2 * GIVE_UP_S)
    with suppress(TimeoutError):
        drill.wait_until(lambda: sender.posted.keys() <= _arrived(running).keys(), patience_s, "webhooks are missing")
    all_s = round(time.time() - silent_at, 1)
    times = drill.control(running.hull_url, "times")
    return back | {
        "all_s": all_s,
        "webhook_s": round(sender.slowest_s, 2),
        "healthz_s": round(health.slowest_s, 2),
        "readyz_s": round(ready.slowest_s, 2),
        "webhooks": len(sender.posted),
        "lost": len(set(sender.refused) | (sender.posted.keys() - _arrived(running).keys())),
        "doubled": sum(1 for mark in sender.posted if times.get(mark, 0) > 1),
        "load": load,
    }


def _arrived(running: Stage) -> dict[str, float]:
    """Return mark → when Hull first received it."""
    return dict(drill.control(running.hull_url, "arrivals"))


def _beat_at() -> float:
    """Return when a tick of beat last reached a worker; it is stored every five seconds."""
    return float(drill.scalar("SELECT extract(epoch FROM at) FROM heartbeats WHERE name = 'beat'") or 0)


@contextmanager
def _processes(broker: str, port: int) -> Iterator[TcpProxy]:
    """Run one worker, beat and one web process, which connect to the broker through the proxy."""
    from pipeline.local.programs import served
    from pipeline.settings import settings

    found = settings()
    with ExitStack() as stack:
        if broker == "amqp":
            host = stack.enter_context(_virtual_host())
            proxy = stack.enter_context(TcpProxy(RABBITMQ))
            urls = {"BROKER_URL": f"amqp://guest:guest@127.0.0.1:{proxy.port}/{host}", "REDIS_URL": found.redis_url}
        else:
            proxy = stack.enter_context(TcpProxy(unquote(urlsplit(found.redis_url or "").path)))
            urls = {name: f"redis://127.0.0.1:{proxy.port}/{db}" for name, db in (("REDIS_URL", 0), ("BROKER_URL", 1))}
        chosen = urls | {"DATABASE_URL": found.database_url, "SECRET_KEYS": ",".join(found.secret_keys)}
        os.environ |= {name: value or "" for name, value in chosen.items()}
        try:
            started = [start_worker(2), start_celery("beat")]
            started.append(drill.start(served("app", "127.0.0.1", port)))
        finally:
            for name in chosen:
                del os.environ[name]
        for process in started:
            stack.callback(drill.kill, process)
        yield proxy


@contextmanager
def _virtual_host() -> Iterator[str]:
    """Create a virtual host of RabbitMQ for this drill."""
    name = f"silent-broker-{secrets.token_hex(4)}"
    _rabbitmqctl("add_vhost", name)
    try:
        _rabbitmqctl("set_permissions", "-p", name, "guest", ".*", ".*", ".*")
        yield name
    finally:
        _rabbitmqctl("delete_vhost", name)


def _has_rabbitmq() -> bool:
    if shutil.which("rabbitmqctl") is None:
        return False
    with suppress(OSError), socket.create_connection(RABBITMQ, timeout=4):
        return True
    return False


def _rabbitmqctl(*words: str) -> None:
    subprocess.run(["rabbitmqctl", "-q", *words], check=True, stdout=subprocess.DEVNULL)  # noqa: S607 - as installed


if __name__ == "__main__":
    sys.exit(main())
