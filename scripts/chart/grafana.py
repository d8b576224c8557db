"""What a dashboard is made of, and the JSON that Grafana imports.

Promises: ids and places of panels follow from their order; a panel's limits are drawn (a dashed line in a chart, the colour of what is shown
elsewhere) and said in its description, from the same numbers; what a plan predicts is drawn dashed.
Does not: know what is shown; that stands in dashboards.py.
"""

import json
from dataclasses import dataclass, field

GREEN, BLUE, YELLOW, ORANGE, DARK_ORANGE, RED = "green", "blue", "yellow", "orange", "dark-orange", "red"
# The least that a rate can be and be there: one event in ten thousand seconds, far less than any chart's interval can tell.
ANY = 0.0001
SOURCE = {"type": "prometheus", "uid": "${datasource}"}
WIDTH = 24
Steps = tuple[tuple[float, str], ...]


@dataclass(frozen=True)
class Panel:
    """One panel. Below the first of `steps` it has the colour `base`, and from each on that step's. `alert`: the rule that fires beyond one of them."""

    title: str
    description: str
    unit: str
    targets: dict[str, str]  # legend → expression
    steps: Steps
    kind: str = "timeseries"
    width: int = 8
    height: int = 7
    least: float | None = 0
    base: str = GREEN
    alert: str = ""
    colours: str = ""  # what the colours mean, where the value is not a figure that people know
    text: str = "value_and_name"  # what a stat shows


@dataclass(frozen=True)
class Row:
    """A heading and its panels."""

    title: str
    panels: list[Panel]


@dataclass(frozen=True)
class Dashboard:
    """One dashboard."""

    name: str
    title: str
    description: str
    rows: list[Row]
    variables: dict[str, str] = field(default_factory=dict)  # besides datasource and namespace: name → query


def stat(title: str, description: str, unit: str, targets: dict[str, str], steps: Steps, **more) -> Panel:
    """A number."""
    return Panel(title, description, unit, targets, steps, "stat", **{"width": 4, "height": 4, **more})


def timeline(title: str, description: str, targets: dict[str, str], steps: Steps, colours: str, unit: str = "short", **more) -> Panel:
    """A bar for each series, whose colour is its state."""
    return Panel(title, description, unit, targets, steps, "state-timeline", colours=colours, **more)


def expressions(dashboard: Dashboard) -> list[tuple[str, str]]:
    """(panel, expression) of every target."""
    return [(panel.title, expression) for row in dashboard.rows for panel in row.panels for expression in panel.targets.values()]


def limits(one: Panel) -> str:
    """In a sentence, where a panel is another colour than green."""
    if one.colours:
        return one.colours
    bounds = [value for value, _ in one.steps]
    colours = [one.base, *(colour for _, colour in one.steps)]
    good = colours.index(GREEN)
    below = [f"{colour} below {figure(bound, one.unit)}" for colour, bound in zip(colours[:good], bounds, strict=False)]
    above = [f"{colour} {'above 0' if bound == ANY else f'from {figure(bound, one.unit)}'}" for bound, colour in one.steps[good:] if colour != GREEN]
    sentence = f"{', '.join([*below, *above])}.".replace("dark-orange", "dark orange")
    return sentence[0].upper() + sentence[1:]


def figure(value: float, unit: str) -> str:
    """A bound as Grafana's axis has it."""
    scales = {
        "s": ((3600, "h"), (60, "min"), (1, "s")),
        "bytes": ((2**30, "GiB"), (2**20, "MiB"), (1, "B")),
        "decbytes": ((10**9, "GB"), (10**6, "MB"), (1, "B")),
        "Bps": ((10**6, "MB/s"), (1, "B/s")),
        "percentunit": ((0.01, "%"),),
        "ops": ((1, "a second"),),
        "reqps": ((1, "a second"),),
    }
    for scale, name in scales.get(unit, ()):
        if scale <= 1 or (value / scale).is_integer():
            return f"{value / scale:g} {name}"
    number = f"{value:g}" if value < 10_000 else f"{value:,.0f}".replace(",", " ")
    return f"{number} {unit.removeprefix('suffix:')}" if unit.startswith("suffix:") else number


def text(dashboard: Dashboard) -> str:
    """The file that Grafana imports."""
    return json.dumps(document(dashboard), indent=1) + "\n"


def document(dashboard: Dashboard) -> dict:
    """A dashboard as Grafana has it."""
    return {
        "uid": f"fedpipe-{dashboard.name}",
        "title": dashboard.title,
        "description": dashboard.description,
        "tags": ["fedpipe"],
        "schemaVersion": 39,
        "editable": True,
        "graphTooltip": 1,
        "refresh": "10s",
        "time": {"from": "now-1h", "to": "now"},
        "timezone": "browser",
        "templating": {"list": variables(dashboard)},
        "links": [{"title": "fedpipe", "type": "dashboards", "tags": ["fedpipe"], "asDropdown": False, "icon": "external link", "includeVars": True, "keepTime": True, "targetBlank": False, "tooltip": "", "url": ""}],
        "annotations": {"list": []},
        "panels": panels(dashboard),
    }


def variables(dashboard: Dashboard) -> list[dict]:
    """Datasource, namespace, and the dashboard's own. All namespaces, where targets have none, too."""
    everything = {"selected": True, "text": "All", "value": "$__all"}
    found = [
        {"name": "datasource", "label": "Prometheus", "type": "datasource", "query": "prometheus", "hide": 0, "includeAll": False, "multi": False, "refresh": 1, "regex": ""},
        {**query("namespace", "label_values(fedpipe_build_info, namespace)"), "includeAll": True, "allValue": ".*", "current": everything},
    ]
    for name, asked in dashboard.variables.items():
        many = {"includeAll": True, "allValue": ".*", "multi": True, "current": everything} if name == "worker" else {}
        found.append({**query(name, asked), **many})
    return found


def query(name: str, asked: str) -> dict:
    """A variable whose values Prometheus knows."""
    return {
        "name": name,
        "label": name.capitalize(),
        "type": "query",
        "datasource": SOURCE,
        "query": {"qryType": 1, "query": asked, "refId": "values"},
        "hide": 0,
        "includeAll": False,
        "multi": False,
        "refresh": 2,
        "regex": "",
        "sort": 1,
    }


def panels(dashboard: Dashboard) -> list[dict]:
    """Rows and panels with their places, left to right and down."""
    placed, y = [], 0
    for row in dashboard.rows:
        placed.append({"id": len(placed) + 1, "type": "row", "title": row.title, "collapsed": False, "gridPos": {"x": 0, "y": y, "w": WIDTH, "h": 1}, "panels": []})
        x, y = 0, y + 1
        for one in row.panels:
            if x + one.width > WIDTH:
                x, y = 0, y + one.height
            placed.append(panel(one, len(placed) + 1, {"x": x, "y": y, "w": one.width, "h": one.height}))
            x += one.width
        y += row.panels[-1].height
    return placed


def panel(one: Panel, number: int, place: dict) -> dict:
    """A panel as Grafana has it."""
    at_end = one.kind == "stat"
    targets = [
        {"refId": chr(ord("A") + index), "datasource": SOURCE, "editorMode": "code", "expr": expression, "legendFormat": legend, "instant": at_end, "range": not at_end}
        for index, (legend, expression) in enumerate(one.targets.items())
    ]
    steps = [{"color": one.base, "value": None}] + [{"color": color, "value": value} for value, color in one.steps]
    defaults = {"unit": one.unit, "thresholds": {"mode": "absolute", "steps": steps}, "color": {"mode": "thresholds" if one.kind != "timeseries" else "palette-classic"}}
    if one.least is not None:
        defaults["min"] = one.least
    if one.kind == "timeseries":
        defaults["custom"] = {"drawStyle": "line", "lineWidth": 1, "fillOpacity": 8, "showPoints": "auto", "spanNulls": False, "thresholdsStyle": {"mode": "dashed"}}
    options = {**OPTIONS[one.kind], "textMode": one.text} if at_end else OPTIONS[one.kind]
    alert = f" {one.alert} fires on it (docs/operate.md)." if one.alert else ""
    return {
        "id": number,
        "type": one.kind,
        "title": one.title,
        "description": f"{one.description} {limits(one)}{alert}",
        "datasource": SOURCE,
        "gridPos": place,
        "fieldConfig": {"defaults": defaults, "overrides": [PLANNED] if any(legend.endswith("planned") for legend in one.targets) else []},
        "options": options,
        "targets": targets,
    }


# Beside what is, what a plan predicts.
PLANNED = {"matcher": {"id": "byRegexp", "options": "/planned$/"}, "properties": [{"id": "custom.lineStyle", "value": {"fill": "dash", "dash": [10, 10]}}, {"id": "custom.fillOpacity", "value": 0}]}
OPTIONS = {
    "timeseries": {"legend": {"displayMode": "list", "placement": "bottom", "showLegend": True, "calcs": []}, "tooltip": {"mode": "multi", "sort": "desc"}},
    "stat": {"reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False}, "orientation": "auto", "textMode": "value_and_name", "colorMode": "value", "graphMode": "none", "justifyMode": "auto", "wideLayout": True, "showPercentChange": False, "percentChangeColorMode": "standard"},
    "state-timeline": {"mergeValues": True, "showValue": "never", "alignValue": "left", "rowHeight": 0.8, "legend": {"displayMode": "list", "placement": "bottom", "showLegend": False, "calcs": []}, "tooltip": {"mode": "single", "sort": "none"}},
}
