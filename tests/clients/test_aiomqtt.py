"""aiomqtt: the publish-subscribe demonstration, and many clients at once."""

import asyncio
import subprocess
import sys
from pathlib import Path

import aiomqtt

from support.brokers import HOST
from support.waiting import DEADLINE

DEMO = Path(__file__).with_name("pubsub_demo.py")


def test_pubsub_demonstration(broker):
    done = subprocess.run(
        [sys.executable, DEMO, "--host", HOST, "--port", str(broker.port)],
        capture_output=True,
        text=True,
        timeout=DEADLINE,
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    for name in ("Subscriber 1", "Subscriber 2"):
        own = [line for line in lines if line.startswith(name)]
        assert own == [f"{name} received: Hello, World!", f"{name} received: Pub-Sub is awesome!"]
    assert len(lines) == 4


def test_a_hundred_clients_hear_everything_in_order(broker):
    subscribers, messages = 100, 30
    expected = [str(number).encode() for number in range(messages)]

    async def listen(index, ready):
        async with aiomqtt.Client(HOST, broker.port, identifier=f"listener-{index}") as client:
            await client.subscribe("fan/+", qos=index % 3)
            ready.release()
            seen = []
            async for message in client.messages:
                seen.append(message.payload)
                if len(seen) == messages:
                    return seen

    async def scenario():
        ready = asyncio.Semaphore(0)
        listening = [asyncio.create_task(listen(index, ready)) for index in range(subscribers)]
        for _ in listening:
            await ready.acquire()
        async with aiomqtt.Client(HOST, broker.port) as publisher:
            for number in range(messages):
                await publisher.publish(f"fan/{number % 4}", str(number), qos=2)
        return await asyncio.gather(*listening)

    for seen in asyncio.run(asyncio.wait_for(scenario(), 3 * DEADLINE)):
        assert seen == expected


def test_fifty_clients_come_and_go_while_one_stays(broker):
    async def visit(index):
        async with aiomqtt.Client(HOST, broker.port, identifier=f"visitor-{index % 10}-{index}") as client:
            await client.subscribe(f"visit/{index}", qos=1)
            await client.publish(f"visit/{index}", str(index), qos=1)
            async for message in client.messages:
                assert message.payload == str(index).encode()
                break
            await client.publish("guestbook", str(index), qos=1)

    async def scenario():
        async with aiomqtt.Client(HOST, broker.port, identifier="host") as host:
            await host.subscribe("guestbook", qos=1)
            await asyncio.gather(*(visit(index) for index in range(50)))
            guests = set()
            async for message in host.messages:
                guests.add(int(message.payload))
                if len(guests) == 50:
                    return guests

    assert asyncio.run(asyncio.wait_for(scenario(), 2 * DEADLINE)) == set(range(50))
