"""Draws a Grafana dashboard from the answers of a Prometheus: what each panel's queries return, in the panel's place.

usage: dashboard-picture.py DASHBOARD.json PROMETHEUS_URL FILE.png
"""

import json
import math
import os
import re
import sys
import time
import urllib.parse
import urllib.request

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402
from PIL import Image  # noqa: E402

MINUTES = float(os.environ.get("MINUTES", "5"))
# A panel's place is given in columns of 24 and rows of 30 pixels.
COLUMNS, COLUMN_INCHES, ROW_INCHES = 24, 0.62, 0.34
INK, PANEL, PAGE, GRID = "#ccccdc", "#181b1f", "#111217", "#2c3235"
COLORS = {"green": "#73bf69", "orange": "#ff9830", "red": "#f2495c", "blue": "#5794f2"}
SERIES = ["#73bf69", "#f2cc0c", "#8ab8ff", "#ff780a", "#f2495c", "#5794f2", "#b877d9", "#705da0", "#37872d", "#fade2a"]
VARIABLES = {
    "$__rate_interval": "30s",
    "$__range": f"{round(MINUTES)}m",
    "$cluster": ".*",
    "$installation": ".*",
    "$namespace": ".*",
}


def ask(url, path, **parameters):
    query = urllib.parse.urlencode(parameters)
    with urllib.request.urlopen(f"{url}/api/v1/{path}?{query}", timeout=30) as answer:
        return json.load(answer)["data"]["result"]


def evaluated(expression):
    for name, value in VARIABLES.items():
        expression = expression.replace(name, value)
    return expression


def legend(target, labels):
    text = target.get("legendFormat") or ""
    return re.sub(r"{{\s*(\w+)\s*}}", lambda found: labels.get(found.group(1), ""), text).strip()


def shown(value, unit):
    if math.isnan(value):
        return "–"
    if unit == "s":
        sign, seconds = ("-" if value < 0 else ""), abs(value)
        for size, name in ((86400, "d"), (3600, "h"), (60, "min")):
            if seconds >= size:
                return f"{sign}{seconds / size:.1f} {name}"
        return f"{sign}{seconds:.3g} s"
    if value >= 1e6:
        return f"{value / 1e6:.1f} M"
    return f"{value:.3g}"


def color_of(value, defaults):
    steps = defaults.get("thresholds", {}).get("steps", [])
    reached = [step["color"] for step in steps if step.get("value") is None or value >= step["value"]]
    return COLORS.get(reached[-1], INK) if reached else INK


def overridden(config, name):
    """The defaults of a panel, with what it sets for the value of that name."""
    properties = [one["properties"] for one in config.get("overrides", []) if one["matcher"] == {"id": "byName", "options": name}]
    return config.get("defaults", {}) | {one["id"]: one["value"] for some in properties for one in some}


def number(axes, panel, url):
    config = panel.get("fieldConfig", {})
    defaults = config.get("defaults", {})
    target = panel["targets"][0]
    results = ask(url, "query", query=evaluated(target["expr"]))
    if results:
        value = float(results[0]["value"][1])
        name = legend(target, results[0]["metric"])
        defaults, text = overridden(config, name), name or shown(value, defaults.get("unit"))
    else:
        value, text = 0, defaults.get("noValue", "no data")
    axes.text(0.5, 0.42, text, ha="center", va="center", fontsize=20, color=color_of(value, defaults))
    axes.axis("off")


def cell(value, settings):
    """The text and the colour of a value in a table."""
    for mapping in settings.get("mappings", []):
        found = mapping["options"].get(f"{value:g}")
        if found:
            return found["text"], COLORS.get(found.get("color"), INK)
    is_coloured = settings.get("custom.cellOptions", {}).get("type", "auto") != "auto"
    return shown(value, settings.get("unit")), color_of(value, settings) if is_coloured else INK


def table(axes, panel, url):
    axes.axis("off")
    organized = next((one["options"] for one in panel.get("transformations", []) if one["id"] == "organize"), {})
    hidden, renamed = organized.get("excludeByName", {}), organized.get("renameByName", {})
    targets = panel["targets"]
    rows, labels_seen = [], []
    for target in targets:
        column = "Value" if len(targets) == 1 else f"Value #{target['refId']}"
        for result in ask(url, "query", query=evaluated(target["expr"])):
            labels = {k: v for k, v in result["metric"].items() if not hidden.get(k) and k != "__name__"}
            labels_seen += [name for name in labels if name not in labels_seen]
            # As Grafana merges: rows that agree in the labels that both have are one.
            same = (row for row in rows if all(row.get(name, value) == value for name, value in labels.items()))
            row = next(same, None)
            if row is None:
                rows.append(row := {})
            row.update(labels)
            if not hidden.get(column):
                row[column] = float(result["value"][1])
    values = [column for column in ("Value", "Value #A", "Value #B") if any(column in row for row in rows)]
    columns = sorted(labels_seen) + values
    for place, column in enumerate(columns):
        x = 0.01 + 0.98 * place / len(columns)
        name = renamed.get(column, column)
        axes.text(x, 0.92, name, fontsize=7, color="#8ab8ff", va="center")
        settings = overridden(panel.get("fieldConfig", {}), name)
        for index, row in enumerate(rows[:8]):
            value = row.get(column, "")
            text, color = cell(value, settings) if isinstance(value, float) else (value, INK)
            axes.text(x, 0.81 - index * 0.1, text[: 7 * panel['gridPos']['w'] // len(columns)], fontsize=8, color=color, va="center")
    for index in range(min(len(rows), 8) + 1):
        axes.axhline(0.86 - index * 0.1, color=GRID, linewidth=0.5)
    if not rows:
        axes.text(0.5, 0.5, "no data: nothing is wrong", fontsize=9, color=INK, ha="center")


def lines(axes, panel, url):
    end = time.time()
    colors = iter(SERIES * 10)
    drawn = 0
    for target in panel["targets"]:
        for result in ask(url, "query_range", query=evaluated(target["expr"]), start=end - MINUTES * 60, end=end, step=1):
            points = [(float(at) - end, float(value)) for at, value in result["values"]]
            points = [(at / 60, value) for at, value in points if not math.isnan(value)]
            if "bytes" in target["expr"]:
                points = [(at, value / 2**20) for at, value in points]
            if not points:
                continue
            label = legend(target, result["metric"]).replace("memory", "memory (MiB)") or ", ".join(result["metric"].values())
            # Series that are always 0 are in Grafana's legend too; here they would hide the others.
            if drawn >= 8 and all(value == 0 for _, value in points):
                continue
            axes.plot(*zip(*points), color=next(colors), linewidth=1, label=label)
            drawn += 1
    axes.set_facecolor(PANEL)
    axes.grid(color=GRID, linewidth=0.5)
    axes.tick_params(colors=INK, labelsize=7)
    axes.set_xlim(-MINUTES, 0)
    # Room for the legend.
    axes.margins(y=0.3)
    if not drawn or axes.dataLim.y0 >= 0:
        axes.set_ylim(bottom=0)
    if drawn:
        axes.legend(fontsize=6, labelcolor=INK, frameon=False, loc="upper left", ncols=2)
    for spine in axes.spines.values():
        spine.set_visible(False)


def main(dashboard, url, file):
    with open(dashboard) as source:
        panels = json.load(source)["panels"]
    rows = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in panels)
    width, height = COLUMNS * COLUMN_INCHES, rows * ROW_INCHES
    figure = plt.figure(figsize=(width, height), facecolor=PAGE)
    draw = {"stat": number, "table": table, "timeseries": lines}
    for panel in panels:
        place = panel["gridPos"]
        x, y = place["x"] / COLUMNS, 1 - (place["y"] + place["h"]) / rows
        w, h = place["w"] / COLUMNS, place["h"] / rows
        gap = 0.004
        frame = plt.Rectangle((x + gap / 2, y + gap / 6), w - gap, h - gap / 3, transform=figure.transFigure, color=PANEL, zorder=-1)
        figure.add_artist(frame)
        is_plot = panel["type"] == "timeseries"
        title, left = 0.34 / height, 0.026 if is_plot else 0.006
        axes = figure.add_axes([x + left, y + (0.3 / height if is_plot else 0.05 / height), w - left - 0.008, h - title - (0.35 / height if is_plot else 0.1 / height)])
        axes.set_facecolor(PANEL)
        if not is_plot:
            axes.set_xlim(0, 1)
            axes.set_ylim(0, 1)
        draw[panel["type"]](axes, panel, url)
        figure.text(x + 0.007, y + h - 0.24 / height, panel["title"], fontsize=7.5 if panel["type"] == "stat" else 9, color=INK, weight="bold")
    figure.savefig(file, dpi=80, facecolor=PAGE)
    # A third of the size.
    with Image.open(file) as picture:
        few_colors = picture.convert("RGB").quantize(64)
    few_colors.save(file, optimize=True)


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    main(*sys.argv[1:])
