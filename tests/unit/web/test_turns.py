"""Requests that are stuck do not take the last threads, and slow work does not take the turns of others."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from pipeline.slow_work import Overloaded, SlowLane, web_request
from pipeline.web.turns import Turns


def test_a_turn_that_is_given_back_goes_to_the_one_that_waits_longest() -> None:
    async def run() -> list[int]:
        turns, order = Turns(at_once=1), list[int]()
        first = await turns.take()

        async def wait(number: int) -> None:
            turn = await turns.take()
            order.append(number)
            turn.end()
            turn.end()  # the second time counts for nothing

        waiting = [asyncio.create_task(wait(number)) for number in range(3)]
        await asyncio.sleep(0)
        first.end()
        await asyncio.gather(*waiting)
        (await turns.take()).end()
        return order

    assert asyncio.run(run()) == [0, 1, 2]


def test_those_that_wait_are_refused_when_nothing_moves() -> None:
    async def run() -> None:
        turns = Turns(at_once=1, stalled_s=0.05)
        stuck = await turns.take()
        for _ in range(2):
            with pytest.raises(Overloaded):
                await turns.take()
        stuck.end()
        (await turns.take()).end()

    asyncio.run(run())


def test_no_more_than_so_many_wait() -> None:
    async def run() -> None:
        turns = Turns(at_once=1, waiting=1)
        held = await turns.take()
        waiting = asyncio.create_task(turns.take())
        await asyncio.sleep(0)
        with pytest.raises(Overloaded):
            await turns.take()
        held.end()
        (await waiting).end()

    asyncio.run(run())


def test_a_request_that_stops_waiting_leaves_its_turn_to_the_next() -> None:
    async def run() -> None:
        turns = Turns(at_once=1)
        held = await turns.take()
        gone = asyncio.create_task(turns.take())
        stays = asyncio.create_task(turns.take())
        await asyncio.sleep(0)
        gone.cancel()
        held.end()
        (await stays).end()

    asyncio.run(run())


def test_slow_work_gives_the_turn_back_before_it_begins() -> None:
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
