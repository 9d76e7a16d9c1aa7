#!/usr/bin/env python3
"""The classic publish-subscribe demonstration over the wire, with an asyncio client (aiomqtt).

One publisher, two subscribers; each of the two receives `Hello, World!` and then `Pub-Sub is awesome!`.

    pubsub_demo.py [--host HOST] [--port PORT]
"""

import argparse
import asyncio

import aiomqtt

TOPIC = "demo/greetings"
MESSAGES = ["Hello, World!", "Pub-Sub is awesome!"]


async def subscriber(name, host, port, ready):
    """Prints what arrives until everything has."""
    async with aiomqtt.Client(host, port) as client:
        await client.subscribe(TOPIC, qos=1)
        ready.set()
        received = 0
        async for message in client.messages:
            print(f"{name} received: {message.payload.decode()}", flush=True)
            received += 1
            if received == len(MESSAGES):
                return


async def publisher(host, port, ready):
    """Publishes once everybody listens."""
    for event in ready:
        await event.wait()
    async with aiomqtt.Client(host, port) as client:
        for message in MESSAGES:
            await client.publish(TOPIC, message, qos=1)


async def demonstrate(host, port):
    names = ["Subscriber 1", "Subscriber 2"]
    ready = [asyncio.Event() for _ in names]
    subscribers = [subscriber(name, host, port, event) for name, event in zip(names, ready)]
    await asyncio.wait_for(asyncio.gather(*subscribers, publisher(host, port, ready)), timeout=60)


def main():
    parser = argparse.ArgumentParser(description="One publisher, two subscribers, two messages.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=1883)
    arguments = parser.parse_args()
    asyncio.run(demonstrate(arguments.host, arguments.port))


if __name__ == "__main__":
    main()
