"""What is measured: calls of `load`, and which of their numbers make rows of the table."""


class Scenario:
    """A call of `load`: its key, its label, its arguments, how long to run it, and its rows.

    `unit` names the rate that tells how many make a run of the wanted length; without it the count is fixed. `raised`
    is false where the broker's own limits are the subject; `alone` is true where other brokers are not asked.
    """

    def __init__(self, key, label, args, rows, unit=None, probe=0, least=0, per_count=1, raised=True, alone=False):
        self.key, self.label, self.args, self.rows = key, label, args.split(), rows
        self.unit, self.probe, self.least, self.per_count = unit, probe, least, per_count
        self.raised, self.alone = raised, alone
        self.tls, self.v5 = "--tls" in self.args, "--v5" in self.args


DELIVERY = [("cpu_us_per_delivery", "CPU µs per delivery"), ("delivery_per_s", "deliveries per s")]
# How many messages the generator got into one write: what a broker saves by batching depends on it.
BATCH = [*DELIVERY, ("published_per_write", "messages per write of the generator")]
CONNECTION = [("cpu_us_per_connection", "CPU µs per connection")]
IDLE = [("bytes_per_connection", "bytes per connection")]
FILTERS = [
    ("bytes_per_filter", "bytes per filter"),
    ("cpu_us_per_filter", "CPU µs per filter subscribed"),
    ("cpu_us_per_last_filter", "… of the last tenth alone"),
    ("cpu_us_per_delivery", "CPU µs per delivery, topics of all filters at random"),
    ("cpu_us_per_same_delivery", "CPU µs per delivery, 1,000 topics at random"),
    ("bytes_left_per_filter", "bytes per filter that stay when its owner has gone"),
]
PAIR = [
    ("pair_latency_p50_us", "the quiet pair, p50 µs"),
    ("pair_latency_p99_us", "the quiet pair, p99 µs"),
    ("pair_lateness_p99_us", "the pair's own lateness, p99 µs"),
]
LATENCY = [
    ("cpu_us_per_delivery", "CPU µs per delivery"),
    ("latency_p50_us", "p50 µs"),
    ("latency_p99_us", "p99 µs"),
    ("latency_p999_us", "p99.9 µs"),
    ("lateness_p99_us", "the generator's own lateness, p99 µs"),
]
RETAINED = [
    ("cpu_us_per_store", "CPU µs per store"),
    ("cpu_us_per_read", "CPU µs per read"),
    ("bytes_per_retained", "bytes per retained message"),
]
OFFLINE = [
    ("cpu_us_per_queued", "CPU µs per queued"),
    ("cpu_us_per_drained", "CPU µs per drained"),
    ("bytes_per_queued", "bytes per queued message"),
]
CHURN = [("cpu_us_per_cycle", "CPU µs per cycle"), ("rss_drift_bytes_per_cycle", "memory drift, bytes per cycle")]
RECONNECT = [
    ("cpu_us_per_connection", "CPU µs per connection"),
    ("all_back_ms", "until all are back, ms"),
    ("connack_max_us", "the slowest CONNACK, µs"),
    ("later_than_4_s", "clients that waited more than 4 s"),
    ("not_back", "clients that did not come back"),
    ("rss_drift_bytes_per_connection", "memory drift, bytes per connection"),
]
SPREAD = [
    ("cpu_us_per_delivery", "CPU µs per delivery, 5 pairs at full speed"),
    ("cpu_us_per_spread_delivery", "CPU µs per delivery, to all in random order, one at a time"),
]


def _flow(key, label, args, rows, probe, per_count=1):
    return Scenario(key, label, args, rows, "delivery", probe, per_count=per_count)


def _connections(count):
    return Scenario(f"connections-{count}", f"{count:,} connections alive, same traffic",
                    f"connections --count {count}", SPREAD)


def _filters(count):
    return Scenario(f"filters-{count}", f"{count:,} mixed filters, QoS 0", f"filters --count {count} --subscribers 1000",
                    FILTERS, alone=True)


SCENARIOS = [
    _flow("fan-in-0", "fan-in 100→1, QoS 0", "fan-in", BATCH, 20_000),
    _flow("fan-in-0-burst-40", "… in bursts of 40", "fan-in --burst 40", BATCH, 20_000),
    _flow("fan-in-0-burst-4", "… in bursts of 4", "fan-in --burst 4 --outstanding 4", BATCH, 20_000),
    _flow("fan-in-0-single", "… at most 1 on the way per publisher", "fan-in --outstanding 1", BATCH, 10_000),
    _flow("fan-in-1", "fan-in 100→1, QoS 1", "fan-in --qos 1", BATCH, 10_000),
    _flow("fan-out-0", "fan-out 1→100, QoS 0", "fan-out", DELIVERY, 1_000, per_count=100),
    _flow("fan-out-1", "fan-out 1→100, QoS 1", "fan-out --qos 1", DELIVERY, 500, per_count=100),
    _flow("pairs-0", "100 pairs, QoS 0", "pairs", BATCH, 20_000),
    _flow("pairs-0-burst-40", "… in bursts of 40, QoS 0", "pairs --burst 40", BATCH, 20_000),
    _flow("pairs-0-single", "… one on the way per pair, QoS 0", "pairs --outstanding 1", BATCH, 10_000),
    _flow("pairs-1", "100 pairs, QoS 1", "pairs --qos 1", BATCH, 10_000),
    _flow("pairs-1-burst-40", "… in bursts of 40, QoS 1", "pairs --qos 1 --burst 40", BATCH, 20_000),
    _flow("pairs-1-single", "… one on the way per pair, QoS 1", "pairs --qos 1 --outstanding 1", BATCH, 10_000),
    _flow("pairs-2", "20 pairs, QoS 2", "pairs --qos 2 --publishers 20", DELIVERY, 5_000),
    _flow("v5-fan-in-1", "MQTT 5: fan-in 100→1, QoS 1", "fan-in --qos 1 --v5", BATCH, 10_000),
    _flow("v5-fan-out-0", "MQTT 5: fan-out 1→100, QoS 0", "fan-out --v5", DELIVERY, 1_000, per_count=100),
    _flow("v5-pairs-1", "MQTT 5: 100 pairs, QoS 1", "pairs --qos 1 --v5", BATCH, 10_000),
    Scenario("rate-0", "4,000 msg/s evenly, QoS 0", "rate", LATENCY),
    Scenario("idle", "idle, 10,000 connections", "idle --count 10000", IDLE),
    Scenario("connect", "connect and subscribe", "connect", CONNECTION, "connection", 2_000, least=5_000),
    Scenario("churn", "connect, publish to oneself, leave", "churn", CHURN, "cycle", 2_000, least=5_000),
    Scenario("stalled", "a stalled subscriber beside a healthy one, QoS 0, default limits", "stalled --outstanding 50",
             [*DELIVERY, ("rss_growth_kb", "memory growth, KB")], "delivery", 20_000, least=200_000, raised=False),
    Scenario("filters", "100 k mixed filters, QoS 0", "filters", FILTERS),
    Scenario("retained", "100 k retained, QoS 1", "retained", RETAINED),
    Scenario("offline", "offline queue, 100 k, QoS 1", "offline", OFFLINE),
    _flow("tls-fan-in-1", "TLS: fan-in 100→1, QoS 1", "fan-in --qos 1 --tls", BATCH, 10_000),
    _flow("tls-fan-out-0", "TLS: fan-out 1→100, QoS 0", "fan-out --tls", DELIVERY, 1_000, per_count=100),
    _flow("tls-pairs-0", "TLS: 100 pairs, QoS 0", "pairs --tls", BATCH, 20_000),
    Scenario("tls-connect", "TLS: handshake and CONNECT", "connect --bare --tls", CONNECTION, "connection", 500,
             least=1_000),
    Scenario("tls-idle", "TLS: idle, 3,000 connections", "idle --count 3000 --tls", IDLE),
    Scenario("flood", "a publisher at full speed beside a pair with 100 msg/s, QoS 0", "flood", [*DELIVERY, *PAIR],
             "delivery", 200_000, least=200_000),
    Scenario("reconnect", "10,000 clients come back at once", "reconnect", RECONNECT),
    Scenario("retained-storm", "100 k retained read 20 times beside a pair with 100 msg/s", "retained-storm",
             [("cpu_us_per_store", "CPU µs per store"), *PAIR]),
    *(_connections(count) for count in (10, 100, 1_000, 10_000)),
    *(_filters(count) for count in (1_000, 10_000, 100_000, 1_000_000)),
]
