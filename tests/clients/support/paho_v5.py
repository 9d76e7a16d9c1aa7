"""paho-mqtt on MQTT 5 behind a recorder: properties both ways, reason codes, and the broker's DISCONNECT."""

from collections import namedtuple

import paho.mqtt.client as mqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from .brokers import HOST
from .paho import PahoClient
from .waiting import DEADLINE, Recorder

Disconnected = namedtuple("Disconnected", "from_broker code properties")
"""The end of a connection: whether a DISCONNECT said so, with its reason code."""


def made(packet, values):
    """Properties of a packet from a dictionary, None for an empty one."""
    if not values:
        return None
    properties = Properties(packet)
    for name, value in values.items():
        setattr(properties, name, value)
    return properties


def options(qos=0, no_local=False, as_published=False, handling=0):
    return SubscribeOptions(qos, no_local, as_published, handling)


def user_properties(message):
    """The user properties of a message, in their order."""
    return getattr(message.properties, "UserProperty", [])


class PahoV5Client(PahoClient):
    """`PahoClient` on MQTT 5. `clean` is Clean Start; `properties` of CONNECT by paho's names.

    `will` is what paho's `will_set` takes, and `will_properties` go with it.
    """

    def __init__(self, client_id="", clean=True, properties=None, manual_ack=False, will=None, will_properties=None):
        super().__init__(client_id, clean=None, protocol=mqtt.MQTTv5, manual_ack=manual_ack)
        if will:
            self.client.will_set(*will, properties=made(PacketTypes.WILLMESSAGE, will_properties))
        self._clean, self._properties = clean, made(PacketTypes.CONNECT, properties)
        self.connack = None
        self._published = Recorder()
        self.client.on_publish = lambda client, data, mid, code, properties: self._published.add((mid, code.value))
        self.client.on_disconnect = lambda client, data, flags, code, properties: self.disconnects.add(
            Disconnected(flags.is_disconnect_packet_from_server, code.value, properties)
        )

    def connect(self, port, keep_alive=60):
        """Connects and waits for the CONNACK, whatever it says."""
        self._connected.clear()
        self.client.connect(HOST, port, keepalive=keep_alive, clean_start=self._clean, properties=self._properties)
        self.client.loop_start()
        assert self._connected.wait(DEADLINE), "no CONNACK"
        return self

    def disconnect(self, code=0, properties=None):
        """DISCONNECT with a reason code, and the end of the network thread."""
        reason = ReasonCode(PacketTypes.DISCONNECT, identifier=code)
        self.client.disconnect(reason, made(PacketTypes.DISCONNECT, properties))
        self.client.loop_stop()

    def subscribe(self, *subscriptions, **properties):
        """Subscribes to (filter, QoS or options) pairs with one SUBSCRIBE and returns the reason codes."""
        wanted = [(name, level if isinstance(level, SubscribeOptions) else options(level)) for name, level in subscriptions]
        result, mid = self.client.subscribe(wanted, properties=made(PacketTypes.SUBSCRIBE, properties))
        assert result == mqtt.MQTT_ERR_SUCCESS
        return [code.value for code in self._wait_acknowledged(mid)]

    def unsubscribe(self, *filters):
        """Returns the reason codes."""
        result, mid = self.client.unsubscribe(list(filters))
        assert result == mqtt.MQTT_ERR_SUCCESS
        return [code.value for code in self._wait_acknowledged(mid)]

    def send(self, topic, payload, qos=0, retain=False, **properties):
        """Publishes and does not wait."""
        return self.client.publish(topic, payload, qos, retain, made(PacketTypes.PUBLISH, properties))

    def publish(self, topic, payload, qos=0, retain=False, **properties):
        """Publishes, waits until the exchange that belongs to the QoS is over, and returns its reason code."""
        mid = self.send(topic, payload, qos, retain, **properties).mid
        return self._published.wait(
            lambda items: next(([code] for seen, code in items if seen == mid), None), f"PUBLISH at QoS {qos} completed"
        )[0]

    def round_trip(self):
        """What the broker had sent before has been received when this returns."""
        self.subscribe(("round/trip", 0))

    def disconnected(self):
        """Waits for the end of the connection."""
        return self.disconnects.wait_count(1, "disconnects")[0]

    def _on_connect(self, client, data, flags, reason, properties):
        self.connack = properties
        super()._on_connect(client, data, flags, reason, properties)
