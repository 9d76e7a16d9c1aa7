"""Markdown of what was measured: all rows with ratios, and which targets are met.

Results are a dictionary: label of the scenario → name of the broker → its runs, or none where it cannot do it. The first
broker is the one measured; ratios are its figure over another's, within a round, then their median.
"""

import csv
import statistics
from pathlib import Path

TARGETS = Path(__file__).resolve().parent.parent / "targets.csv"


def show(value):
    if value is None:
        return "-"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def median(runs, key):
    values = [run[key] for run in runs if key in run]
    return statistics.median(values) if values else None


def ratio(runs, others, key):
    """The median of the ratios within a round."""
    pairs = [(a[key], b[key]) for a, b in zip(runs, others) if key in a and b.get(key)]
    return statistics.median(a / b for a, b in pairs) if pairs else None


def three_digits(value):
    return "-" if value is None else f"{value:.3f}"


def table(results, names, scenarios):
    """Medians per broker, and the ratio of the first broker to each other."""
    first, others = names[0], names[1:]
    heads = ["scenario", "measure", first, *others, *(f"{first} / {name}" for name in others)]
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    for scenario in scenarios:
        runs, label = results[scenario.label], scenario.label
        for key, text in scenario.rows:
            cells = []
            for name in names:
                wrong = sum(not run["ok"] for run in runs[name])
                value = median(runs[name], key)
                mark = f" ({wrong} of {len(runs[name])} runs wrong)" if wrong and value is not None else ""
                cells.append(show(value) + mark)
            cells += [three_digits(ratio(runs[first], runs[name], key)) for name in others]
            lines.append("| " + " | ".join([label, text, *cells]) + " |")
            label = ""
    return "\n".join(lines)


def faults(results, scenarios):
    """One line per broker and scenario that went wrong, with the first reason given."""
    lines = []
    for scenario in scenarios:
        for name, runs in results[scenario.label].items():
            reasons = [reason(run) for run in runs if not run["ok"]]
            if reasons:
                lines.append(f"- {name}, {scenario.label}: {reasons[0]}")
    return "\n".join(lines)


def reason(run):
    counts = [f"{run[kind]:,} {kind}" for kind in ("missing", "disordered", "corrupt") if run.get(kind)]
    return "; ".join(counts + run.get("notes", [])) or "not right"


def read_targets():
    lines = [line for line in TARGETS.read_text().splitlines() if not line.startswith("#")]
    return list(csv.DictReader(lines))


def targets(results, names, scenarios):
    """Each target that can be judged by these results."""
    heads = ["scenario", "measure", names[0], "judged by", "ratio", "at most", ""]
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    for target in read_targets():
        row = judge(target, results, names, scenarios)
        if row:
            lines.append("| " + " | ".join(row) + " |")
    return "\n".join(lines)


def judge(target, results, names, scenarios):
    metric, bound = target["metric"], float(target["bound"])
    if target["kind"] == "flat":
        return judge_flat(target, results, names, scenarios)
    scenario = next((s for s in scenarios if s.key == target["scenario"]), None)
    runs = results[scenario.label] if scenario else {}
    own = median(runs.get(names[0], []), metric)
    if own is None:
        return None
    text = dict(scenario.rows).get(metric, metric)
    verdict = is_right(runs[names[0]])
    if target["kind"] == "at most":
        return [scenario.label, text, show(own), "", "", show(bound), verdict or met(own, bound)]
    reference, by = target["reference"], ""
    against = "rmqttd" if reference == "rmqtt" else reference
    if median(runs.get(against, []), metric):
        by, limit = against, bound
    elif target["mosquitto"] and median(runs.get("mosquitto", []), metric):
        # Both figures of the baseline come from one machine: their ratio carries over.
        against = "mosquitto"
        limit = bound * float(target[reference]) / float(target["mosquitto"])
        by = f"mosquitto for {reference}: {bound:g} × {target[reference]} / {target['mosquitto']}"
    else:
        return None
    found = ratio(runs[names[0]], runs[against], metric)
    if found is None:
        return None
    return [scenario.label, text, show(own), by, three_digits(found), three_digits(limit), verdict or met(found, limit)]


def judge_flat(target, results, names, scenarios):
    metric, bound = target["metric"], float(target["bound"])
    chosen = [s for s in scenarios if s.key.startswith(target["scenario"])]
    values = [median(results[s.label][names[0]], metric) for s in chosen]
    if len(values) < 2 or not all(values):
        return None
    found = max(value / min(values[: place + 1]) for place, value in enumerate(values))
    wrong = [is_right(results[s.label][names[0]]) for s in chosen]
    label = f"{chosen[0].label} … {chosen[-1].label}"
    text = dict(chosen[0].rows).get(metric, metric)
    figures = " ".join(show(value) for value in values)
    verdict = next(filter(None, wrong), "") or met(found, bound)
    return [label, text, figures, "largest rise with size", three_digits(found), three_digits(bound), verdict]


def is_right(runs):
    return "" if all(run["ok"] for run in runs) else "runs went wrong"


def met(value, bound):
    return "met" if value <= bound else "**missed**"
