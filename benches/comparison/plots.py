"""Bar charts as SVG, with a logarithmic scale: one group per scenario, one bar per broker.

They have no background of their own, and their text is of a grey that can be read on light and on dark pages.
"""

import math
from xml.sax.saxutils import escape

from .tables import median, show

COLOURS = ["#0f9d76", "#d9822b", "#5b7fd1", "#b565c9", "#c94f5d", "#8a8a3c", "#3c9fb0"]
# One grey with enough contrast to white and to black: a style for each scheme would follow the reader's system, which need not be the
# page's.
STYLE = "text{font:11px system-ui,sans-serif;fill:#77808c}.grid{stroke:#8b949e;stroke-opacity:.35}"
LEFT, RIGHT, WIDTH, TOP = 230, 64, 860, 62
BAR, GAP = 10, 8

CPU = {
    "fan-in-0": "cpu_us_per_delivery",
    "fan-in-0-single": "cpu_us_per_delivery",
    "fan-in-1": "cpu_us_per_delivery",
    "fan-out-0": "cpu_us_per_delivery",
    "fan-out-1": "cpu_us_per_delivery",
    "pairs-0": "cpu_us_per_delivery",
    "pairs-1": "cpu_us_per_delivery",
    "pairs-2": "cpu_us_per_delivery",
    "rate-0": "cpu_us_per_delivery",
    "filters": "cpu_us_per_delivery",
    "offline": "cpu_us_per_drained",
    "tls-fan-in-1": "cpu_us_per_delivery",
    "tls-fan-out-0": "cpu_us_per_delivery",
    "tls-pairs-0": "cpu_us_per_delivery",
}
CONNECTIONS = {
    "connect": "cpu_us_per_connection",
    "churn": "cpu_us_per_cycle",
    "tls-connect": "cpu_us_per_connection",
}
MEMORY = {
    "idle": "bytes_per_connection",
    "tls-idle": "bytes_per_connection",
    "filters": "bytes_per_filter",
    "retained": "bytes_per_retained",
    "offline": "bytes_per_queued",
}
CHARTS = [
    ("cpu", "Broker CPU, µs per delivery (less is better)", CPU),
    ("connections", "Broker CPU, µs per connection or cycle (less is better)", CONNECTIONS),
    ("memory", "Broker memory, bytes each (less is better)", MEMORY),
]


def write(directory, results, names, scenarios, subtitle):
    """Writes each chart for which there is something to show; returns their files."""
    directory.mkdir(parents=True, exist_ok=True)
    files = []
    for stem, title, metrics in CHARTS:
        groups = []
        for scenario in scenarios:
            runs = results[scenario.label]
            key = metrics.get(scenario.key)
            # A broker that lost messages has no figure.
            values = [
                (place, median(runs[name], key)) for place, name in enumerate(names)
                if key and runs[name] and all(run["ok"] for run in runs[name])
            ]
            values = [(place, value) for place, value in values if value and value > 0]
            if values:
                groups.append((label(scenario), values))
        if groups:
            file = directory / f"{stem}.svg"
            file.write_text(chart(title, subtitle, names, groups))
            files.append(file)
    return files


def label(scenario):
    if scenario.key == "fan-in-0-single":
        return "fan-in, 1 on the way each, QoS 0"
    return scenario.label


def chart(title, subtitle, names, groups):
    values = [value for _, bars in groups for _, value in bars]
    low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
    # The smallest bar must be seen, too.
    low = low - 1 if math.log10(min(values)) - low < 0.1 else low
    high = max(high, low + 1)
    span = WIDTH - LEFT - RIGHT

    def x(value):
        return LEFT + span * (math.log10(value) - low) / (high - low)

    height = TOP + sum(len(bars) * BAR + GAP for _, bars in groups) + 26
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" '
        f'role="img" aria-label="{escape(title)}">',
        f"<style>{STYLE}</style>",
        f'<text x="8" y="16" font-weight="600" style="font-size:13px">{escape(title)}</text>',
        f'<text x="8" y="32">{escape(subtitle)}; logarithmic scale</text>',
    ]
    left = 8
    for place, name in enumerate(names):
        if any(place == there for _, bars in groups for there, _ in bars):
            out.append(f'<rect x="{left}" y="41" width="10" height="10" fill="{COLOURS[place % len(COLOURS)]}"/>')
            out.append(f'<text x="{left + 14}" y="50">{escape(name)}</text>')
            left += 30 + 7 * len(name)
    bottom = height - 20
    for power in range(low, high + 1):
        at = x(10**power)
        out.append(f'<line class="grid" x1="{at:.1f}" y1="{TOP - 4}" x2="{at:.1f}" y2="{bottom}"/>')
        out.append(f'<text x="{at:.1f}" y="{bottom + 14}" text-anchor="middle">{10.0**power:,g}</text>')
    top = TOP
    for text, bars in groups:
        middle = top + len(bars) * BAR / 2 + 4
        out.append(f'<text x="{LEFT - 8}" y="{middle:.1f}" text-anchor="end">{escape(text)}</text>')
        for place, value in bars:
            width = max(x(value) - LEFT, 1)
            colour = COLOURS[place % len(COLOURS)]
            out.append(f'<rect x="{LEFT}" y="{top}" width="{width:.1f}" height="{BAR - 1}" fill="{colour}"/>')
            out.append(
                f'<text x="{LEFT + width + 4:.1f}" y="{top + BAR - 1.5}" style="font-size:9px">{show(value)}</text>'
            )
            top += BAR
        top += GAP
    return "\n".join([*out, "</svg>", ""])
