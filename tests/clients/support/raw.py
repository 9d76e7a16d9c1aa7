"""MQTT 3.1.1 packets by hand over a plain socket: for what no well-behaved client library would send.

Covers what the tests need and no more; it judges nothing, the tests do.
"""

import socket
import struct

from .waiting import DEADLINE

CONNECT, CONNACK, PUBLISH, PUBACK, PUBREC, PUBREL, PUBCOMP = 1, 2, 3, 4, 5, 6, 7
SUBSCRIBE, SUBACK, UNSUBSCRIBE, UNSUBACK, PINGREQ, PINGRESP, DISCONNECT = 8, 9, 10, 11, 12, 13, 14


class Closed(Exception):
    """The broker closed the connection, in an orderly way or not."""


def text(value):
    """A string or bytes with its length in front."""
    data = value.encode() if isinstance(value, str) else value
    return struct.pack(">H", len(data)) + data


def packet(kind, flags, body=b""):
    """A whole control packet."""
    head = bytearray([kind << 4 | flags])
    length = len(body)
    while True:
        length, digit = divmod(length, 128)
        head.append(digit | (0x80 if length else 0))
        if not length:
            return bytes(head) + body


def connect(client_id, clean=True, keep_alive=60, will=None):
    """CONNECT. `will` is (topic, payload, qos, retain)."""
    flags, payload = (0x02 if clean else 0), text(client_id)
    if will:
        topic, message, qos, retain = will
        flags |= 0x04 | qos << 3 | (0x20 if retain else 0)
        payload += text(topic) + text(message)
    return packet(CONNECT, 0, text("MQTT") + bytes([4, flags]) + struct.pack(">H", keep_alive) + payload)


def publish(topic, payload, qos=0, packet_id=0, retain=False, dup=False):
    identifier = struct.pack(">H", packet_id) if qos else b""
    flags = (8 if dup else 0) | qos << 1 | (1 if retain else 0)
    return packet(PUBLISH, flags, text(topic) + identifier + payload)


def subscribe(packet_id, *filters):
    """SUBSCRIBE to (filter, qos) pairs."""
    body = b"".join(text(name) + bytes([qos]) for name, qos in filters)
    return packet(SUBSCRIBE, 2, struct.pack(">H", packet_id) + body)


def acknowledgement(kind, packet_id):
    return packet(kind, 2 if kind == PUBREL else 0, struct.pack(">H", packet_id))


class Received:
    """A packet from the broker; the fields of PUBLISH are there if it is one."""

    def __init__(self, first_byte, body):
        self.kind, self.flags, self.body = first_byte >> 4, first_byte & 15, body
        if self.kind == PUBLISH:
            size = struct.unpack(">H", body[:2])[0]
            self.topic, rest = body[2 : 2 + size].decode(), body[2 + size :]
            self.qos, self.dup, self.retain = self.flags >> 1 & 3, bool(self.flags & 8), bool(self.flags & 1)
            self.packet_id = struct.unpack(">H", rest[:2])[0] if self.qos else 0
            self.payload = rest[2:] if self.qos else rest
        elif self.kind in (PUBACK, PUBREC, PUBREL, PUBCOMP, SUBACK, UNSUBACK):
            self.packet_id = struct.unpack(">H", body[:2])[0]

    def __repr__(self):
        return f"Received(kind={self.kind}, flags={self.flags}, body={self.body[:40]!r})"


class RawClient:
    """A socket with a packet reader. `timeout` in seconds bounds every single read."""

    def __init__(self, port, timeout=DEADLINE, wrap=None):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=timeout)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if wrap:
            self.socket = wrap(self.socket)
        self._buffer = bytearray()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self.socket.close()

    def send(self, data):
        try:
            self.socket.sendall(data)
        except (ConnectionResetError, BrokenPipeError) as error:
            raise Closed(str(error)) from error

    def connect(self, client_id, **options):
        """Sends CONNECT and returns (session present, return code)."""
        self.send(connect(client_id, **options))
        answer = self.expect(CONNACK)
        return bool(answer.body[0]), answer.body[1]

    def subscribe(self, *filters, packet_id=1):
        """Sends SUBSCRIBE and returns the return codes."""
        self.send(subscribe(packet_id, *filters))
        return list(self.expect(SUBACK).body[2:])

    def receive(self):
        """The next packet."""
        first = self._take(1)[0]
        length = shift = 0
        while True:
            digit = self._take(1)[0]
            length |= (digit & 0x7F) << shift
            shift += 7
            if not digit & 0x80:
                return Received(first, bytes(self._take(length)))

    def expect(self, kind):
        """The next packet, which has to be of this kind."""
        received = self.receive()
        assert received.kind == kind, f"expected a packet of type {kind}, got {received}"
        return received

    def expect_closed(self, timeout=DEADLINE):
        """Reads until the broker closes, and returns the bytes that came before."""
        self.socket.settimeout(timeout)
        seen = bytes(self._buffer)
        try:
            while data := self.socket.recv(65536):
                seen += data
        except TimeoutError:
            raise AssertionError(f"the broker kept the connection open for {timeout:.0f} s") from None
        except (ConnectionResetError, BrokenPipeError):
            pass
        return seen

    def ping(self):
        """A round trip; what came before it on the connection has been handled when this returns."""
        self.send(packet(PINGREQ, 0))
        self.expect(PINGRESP)

    def _take(self, size):
        while len(self._buffer) < size:
            try:
                data = self.socket.recv(1 << 18)
            except ConnectionResetError as error:
                raise Closed(str(error)) from error
            if not data:
                raise Closed("end of stream")
            self._buffer += data
        taken = self._buffer[:size]
        del self._buffer[:size]
        return taken
