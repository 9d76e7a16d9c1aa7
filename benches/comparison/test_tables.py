"""Judging targets: python3 -m unittest discover -s benches -t benches"""

import unittest

from . import tables
from .scenarios import SCENARIOS

BY_KEY = {scenario.key: scenario for scenario in SCENARIOS}


def verdicts(figures, names, ok=True):
    """`figures`: (scenario's key, metric) → one figure per broker, None where it was not run."""
    chosen = [s for s in SCENARIOS if any(s.key == key for key, _ in figures)]
    results = {scenario.label: {name: [] for name in names} for scenario in chosen}
    for (key, metric), values in figures.items():
        for name, value in zip(names, values):
            if value is not None:
                results[BY_KEY[key].label][name].append({"ok": ok, metric: value})
    lines = tables.targets(results, names, chosen).splitlines()[2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


class Targets(unittest.TestCase):
    def test_every_target_names_a_scenario_and_a_row(self):
        for target in tables.read_targets():
            keys = [key for key in BY_KEY if key == target["scenario"] or
                    target["kind"] == "flat" and key.startswith(target["scenario"])]
            self.assertTrue(keys, target)
            for key in keys:
                self.assertIn(target["metric"], dict(BY_KEY[key].rows), key)

    def test_a_broker_that_was_not_run_is_judged_through_mosquitto(self):
        figures = {("fan-in-0", "cpu_us_per_delivery"): [3.0, 6.1]}
        [row] = verdicts(figures, ["ternmq", "mosquitto"])
        # 0.9 × 3.3 / 6.1
        self.assertEqual(row[4:], ["0.492", "0.487", "**missed**"])
        [row] = verdicts({("fan-in-0", "cpu_us_per_delivery"): [2.9, 6.1]}, ["ternmq", "mosquitto"])
        self.assertEqual(row[6], "met")

    def test_a_broker_that_was_run_is_judged_directly(self):
        figures = {("fan-out-0", "cpu_us_per_delivery"): [0.35, 4.3, 0.34]}
        [row] = verdicts(figures, ["ternmq", "mosquitto", "rumqttd"])
        self.assertEqual(row[3:], ["rumqttd", "1.029", "0.900", "**missed**"])

    def test_what_cannot_be_judged_is_left_out_and_wrong_runs_meet_nothing(self):
        self.assertEqual(verdicts({("fan-in-0", "cpu_us_per_delivery"): [1.0]}, ["ternmq"]), [])
        [row] = verdicts({("reconnect", "connack_max_us"): [5.0]}, ["ternmq"], ok=False)
        self.assertEqual(row[6], "runs went wrong")

    def test_only_a_rise_with_size_counts(self):
        def flat(values):
            figures = {(f"connections-{10 ** (n + 1)}", "cpu_us_per_delivery"): [v] for n, v in enumerate(values)}
            return verdicts(figures, ["ternmq"])[0][4:]

        self.assertEqual(flat([2.0, 1.0, 1.3]), ["1.300", "1.353", "met"])
        self.assertEqual(flat([2.0, 1.0, 1.4])[2], "**missed**")
        self.assertEqual(flat([1.0, 1.4, 1.0])[2], "**missed**")


if __name__ == "__main__":
    unittest.main()
