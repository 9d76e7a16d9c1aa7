"""paho-mqtt behind a recorder: a client whose events a test can wait for."""

import threading

import paho.mqtt.client as mqtt

from .brokers import HOST
from .waiting import DEADLINE, Recorder


class PahoClient:
    """A paho client with its own network thread. It never reconnects by itself: tests say when."""

    def __init__(self, client_id="", clean=True, protocol=mqtt.MQTTv311, manual_ack=False, will=None):
        self.messages = Recorder()
        self.disconnects = Recorder()
        self.pongs = Recorder()
        self.client = mqtt.Client(
            mqtt.CallbackAPIVersion.VERSION2,
            client_id=client_id,
            clean_session=clean,
            protocol=protocol,
            manual_ack=manual_ack,
            reconnect_on_failure=False,
        )
        # One window for the whole test: what a test publishes at once is under way at once.
        self.client.max_inflight_messages_set(64)
        if will:
            self.client.will_set(*will)
        self.session_present = None
        self.return_code = None
        self._connected = threading.Event()
        self._acknowledged = Recorder()
        self.client.on_connect = self._on_connect
        self.client.on_disconnect = lambda client, data, flags, reason, properties: self.disconnects.add(str(reason))
        self.client.on_message = lambda client, data, message: self.messages.add(message)
        self.client.on_subscribe = lambda client, data, mid, codes, properties: self._acknowledged.add((mid, codes))
        self.client.on_unsubscribe = lambda client, data, mid, codes, properties: self._acknowledged.add((mid, codes))
        self.client.on_log = lambda client, data, level, text: "PINGRESP" in text and self.pongs.add(text)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.disconnect()

    def connect(self, port, keep_alive=60):
        """Connects and waits for the CONNACK."""
        self._connected.clear()
        self.client.connect(HOST, port, keepalive=keep_alive)
        self.client.loop_start()
        assert self._connected.wait(DEADLINE), "no CONNACK"
        return self

    def disconnect(self):
        """DISCONNECT, and the end of the network thread."""
        self.client.disconnect()
        self.client.loop_stop()

    def drop(self):
        """Ends the connection without DISCONNECT, as a lost network does."""
        before = len(self.disconnects.all())
        # shutdown() is what wakes the network thread; close() alone would leave it in select.
        self.client.socket().shutdown(2)
        self.disconnects.wait_count(before + 1, "disconnects")
        self.client.loop_stop()

    def subscribe(self, *subscriptions):
        """Subscribes to (filter, qos) pairs with one SUBSCRIBE and returns what was granted."""
        result, mid = self.client.subscribe(list(subscriptions))
        assert result == mqtt.MQTT_ERR_SUCCESS
        return [code.value for code in self._wait_acknowledged(mid)]

    def unsubscribe(self, *filters):
        result, mid = self.client.unsubscribe(list(filters))
        assert result == mqtt.MQTT_ERR_SUCCESS
        self._wait_acknowledged(mid)

    def publish(self, topic, payload, qos=0, retain=False):
        """Publishes and waits until the exchange that belongs to the QoS is over."""
        info = self.client.publish(topic, payload, qos, retain)
        info.wait_for_publish(DEADLINE)
        assert info.is_published(), f"PUBLISH at QoS {qos} was not completed"

    def payloads(self, count):
        """Waits for `count` messages and returns the payloads of all there are."""
        return [message.payload for message in self.messages.wait_count(count, "messages")]

    def _wait_acknowledged(self, mid):
        return self._acknowledged.wait(
            lambda items: next((codes or [True] for seen, codes in items if seen == mid), None), "acknowledged"
        )

    def _on_connect(self, client, data, flags, reason, properties):
        self.session_present, self.return_code = flags.session_present, reason
        self._connected.set()
