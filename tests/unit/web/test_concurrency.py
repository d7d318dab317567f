"""Stuck requests do not use all threads, and slow work does not use the slots of other requests."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from pipeline.slow_work import Overloaded, SlowLane, web_request
from pipeline.web.concurrency import RequestSlots


def test_a_released_slot_is_passed_to_the_longest_waiting_request() -> None:
    async def run() -> list[int]:
        slots, order = RequestSlots(at_once=1), list[int]()
        first = await slots.acquire()

        async def wait(number: int) -> None:
            slot = await slots.acquire()
            order.append(number)
            slot.release()
            slot.release()  # the second time counts for nothing

        waiting = [asyncio.create_task(wait(number)) for number in range(3)]
        await asyncio.sleep(0)
        first.release()
        await asyncio.gather(*waiting)
        (await slots.acquire()).release()
        return order

    assert asyncio.run(run()) == [0, 1, 2]


def test_waiting_requests_are_refused_when_none_makes_progress() -> None:
    async def run() -> None:
        slots = RequestSlots(at_once=1, stalled_s=0.05)
        stuck = await slots.acquire()
        for _ in range(2):
            with pytest.raises(Overloaded):
                await slots.acquire()
        stuck.release()
        (await slots.acquire()).release()

    asyncio.run(run())


def test_the_number_of_waiting_requests_is_limited() -> None:
    async def run() -> None:
        slots = RequestSlots(at_once=1, waiting=1)
        held = await slots.acquire()
        waiting = asyncio.create_task(slots.acquire())
        await asyncio.sleep(0)
        with pytest.raises(Overloaded):
            await slots.acquire()
        held.release()
        (await waiting).release()

    asyncio.run(run())


def test_a_cancelled_request_passes_its_slot_on() -> None:
    async def run() -> None:
        slots = RequestSlots(at_once=1)
        held = await slots.acquire()
        gone = asyncio.create_task(slots.acquire())
        stays = asyncio.create_task(slots.acquire())
        await asyncio.sleep(0)
        gone.cancel()
        held.release()
        (await stays).release()

    asyncio.run(run())


def test_slow_work_releases_the_slot_before_it_begins() -> None:
    lane, given_back = SlowLane("test", at_once=1, waiting=0, patience_s=1), list[bool]()
    with web_request(lambda: given_back.append(True)), lane.entered():
        assert given_back == [True]
        with lane.entered():  # one call within another is one piece of work
            pass


def test_a_full_lane_refuses_and_is_open_again_when_its_work_ends() -> None:
    lane = SlowLane("test", at_once=1, waiting=1, patience_s=10)
    inside, end = threading.Semaphore(0), threading.Event()

    def work() -> str:
        with web_request(lambda: None), lane.entered():
            inside.release()
            assert end.wait(10)
        return "done"

    with ThreadPoolExecutor(2) as threads:
        running = threads.submit(work)
        assert inside.acquire(timeout=10)
        waiting = threads.submit(work)
        while lane.free_places:
            pass
        with pytest.raises(Overloaded), web_request(lambda: None), lane.entered():
            pass
        end.set()
        assert [running.result(10), waiting.result(10)] == ["done", "done"]
    with web_request(lambda: None), lane.entered():
        pass


def test_work_that_waits_too_long_is_refused() -> None:
    lane = SlowLane("test", at_once=1, waiting=1, patience_s=0.01)
    end, inside = threading.Event(), threading.Event()

    def work() -> None:
        with web_request(lambda: None), lane.entered():
            inside.set()
            assert end.wait(10)

    with ThreadPoolExecutor(1) as threads:
        running = threads.submit(work)
        assert inside.wait(10)
        with pytest.raises(Overloaded), web_request(lambda: None), lane.entered():
            pass
        end.set()
        running.result(10)


def test_workers_and_commands_are_not_held_up() -> None:
    lane = SlowLane("test", at_once=0, waiting=0, patience_s=0)
    with lane.entered():
        pass
