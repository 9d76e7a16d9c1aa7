"""aiomqtt: the publish-subscribe demonstration, and many clients at once, on 3.1.1 and 5."""

import asyncio
import subprocess
import sys
from pathlib import Path

import aiomqtt
import pytest
from aiomqtt import ProtocolVersion
from paho.mqtt.packettypes import PacketTypes

from support.brokers import HOST
from support.paho_v5 import made, options
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


@pytest.mark.parametrize("versions", [[ProtocolVersion.V311], [ProtocolVersion.V5, ProtocolVersion.V311]])
def test_a_hundred_clients_hear_everything_in_order(broker, versions):
    subscribers, messages = 100, 30
    expected = [str(number).encode() for number in range(messages)]

    async def listen(index, ready):
        version = versions[index % len(versions)]
        async with aiomqtt.Client(HOST, broker.port, identifier=f"listener-{index}", protocol=version) as client:
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
        async with aiomqtt.Client(HOST, broker.port, protocol=versions[0]) as publisher:
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


def test_properties_and_subscription_options_of_mqtt_5(broker):
    order = [("b", "1"), ("a", "2"), ("b", "1")]

    async def scenario():
        session = made(PacketTypes.CONNECT, {"SessionExpiryInterval": 600})
        will = aiomqtt.Will("wills/aio", "gone", 1, properties=made(PacketTypes.WILLMESSAGE, {"UserProperty": order}))
        async with aiomqtt.Client(
            HOST, broker.port, identifier="aio", protocol=ProtocolVersion.V5, properties=session, will=will
        ) as client:
            subscription = made(PacketTypes.SUBSCRIBE, {"SubscriptionIdentifier": 11})
            codes = await client.subscribe("t/+", options=options(1, as_published=True), properties=subscription)
            assert [code.value for code in codes] == [1]
            # The will of a client that says goodbye is not published.
            await client.subscribe("wills/#", qos=1)
            properties = made(PacketTypes.PUBLISH, {"UserProperty": order, "CorrelationData": b"\x00\x01"})
            await client.publish("t/1", "kept", qos=1, retain=True, properties=properties)
            message = await anext(client.messages)
            assert (message.payload, message.qos, bool(message.retain)) == (b"kept", 1, True)
            assert message.properties.UserProperty == order
            assert (message.properties.CorrelationData, message.properties.SubscriptionIdentifier) == (b"\x00\x01", [11])
        async with aiomqtt.Client(HOST, broker.port, protocol=ProtocolVersion.V5) as other:
            await other.publish("t/2", "while away", qos=1)
        async with aiomqtt.Client(
            HOST, broker.port, identifier="aio", protocol=ProtocolVersion.V5, properties=session, clean_start=False
        ) as client:
            message = await anext(client.messages)
            assert (message.payload, message.properties.SubscriptionIdentifier) == (b"while away", [11])

    asyncio.run(asyncio.wait_for(scenario(), DEADLINE))
