"""The Grafana dashboards, written down once and small; generate.py makes the JSON of helm/fedpipe/dashboards from it.

Promises: every panel says what it shows, in which unit, and where it turns yellow and red; every expression goes through the
dashboard's namespace; the ids and places of panels follow from their order. What an expression may name stands in docs/metrics.md.
"""

import json
import re
from dataclasses import dataclass, field

# Several processes of the api say the same of jobs and workers, hence `max`; Grafana fills in namespace and interval.
NAMESPACE = 'namespace=~"$namespace"'
RATE = "$__rate_interval"
GREEN, YELLOW, RED = "green", "yellow", "red"
SOURCE = {"type": "prometheus", "uid": "${datasource}"}
WIDTH = 24


@dataclass(frozen=True)
class Panel:
    """One panel. `steps`: from which value on it is yellow and red; empty: it is never anything but green."""

    title: str
    description: str
    unit: str
    targets: dict[str, str]  # legend → expression
    kind: str = "timeseries"
    steps: tuple[tuple[float, str], ...] = ()
    width: int = 8
    height: int = 7
    least: float | None = 0


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


def each(metric: str, by: str, matchers: str = "") -> str:
    """A metric of jobs or workers as one series for each value of `by`, whichever replica of the api says it."""
    return f"max by ({by}) ({metric}{{{NAMESPACE}{matchers}}})"


def rate(metric: str, by: str = "", matchers: str = "") -> str:
    """How fast a counter grows, over all processes."""
    grouped = f" by ({by})" if by else ""
    return f"sum{grouped} (rate({metric}{{{NAMESPACE}{matchers}}}[{RATE}]))"


def quantile(share: float, metric: str, by: str = "") -> str:
    """A quantile of a histogram."""
    inner = f"le, {by}" if by else "le"
    return f"histogram_quantile({share}, {rate(f'{metric}_bucket', inner)})"


def since_start(share: float, metric: str) -> str:
    """A quantile of all that a histogram has seen: of what happens too seldom for a rate."""
    return f"histogram_quantile({share}, sum by (le) ({metric}_bucket{{{NAMESPACE}}}))"


OWN = f"* on (namespace, instance) group_left () fedpipe_build_info{{{NAMESPACE}}}"
DONE, LOST = ', error_type=""', ', error_type!=""'
WORKER = ', worker=~"$worker"'
JOB = ', job_id="$job"'
NOT_OURS = ', http_response_status_code!~"5.."'


def answers(matchers: str = "") -> str:
    """Answers a second of all api processes."""
    return f"sum (rate(http_server_request_duration_seconds_count{{{NAMESPACE}{matchers}}}[{RATE}]) {OWN})"


def of_job(metric: str, by: str = "job_id") -> str:
    """A metric of the chosen job."""
    return each(metric, by, JOB)


FLEET = Dashboard(
    "fleet",
    "fedpipe / Fleet",
    "Who is there, fast, full and late",
    [
        Row(
            "The fleet",
            [
                Panel("Workers there", "Workers whose beats arrive.", "short", {"there": f"sum({each('fedpipe_worker_up', 'worker')})"}, "stat", ((1, GREEN),), 4, 4),
                Panel("Workers gone", "Registered workers that missed three beats.", "short", {"gone": f"count({each('fedpipe_worker_up', 'worker')}) - sum({each('fedpipe_worker_up', 'worker')})"}, "stat", ((1, RED),), 4, 4),
                Panel("Workers late", "Workers that are at an earlier round of a job than the others.", "short", {"late": f"sum({each('fedpipe_worker_late', 'worker')})"}, "stat", ((1, YELLOW),), 4, 4),
                Panel("Tokens per second", "Speed of all tasks under way together.", "short", {"fleet": f"sum({each('fedpipe_worker_tokens_per_second', 'worker')})"}, "stat", (), 4, 4),
                Panel("Tasks waiting", "Tasks in all workers' queues, those being worked on included.", "short", {"tasks": f"sum({each('fedpipe_worker_queue', 'worker')})"}, "stat", (), 4, 4),
                Panel("Left out", "Series of jobs and workers beyond the limit of what is shown.", "short", {"series": f"max(fedpipe_telemetry_series_left_out{{{NAMESPACE}}})"}, "stat", ((1, YELLOW),), 4, 4),
            ],
        ),
        Row(
            "Who is there",
            [
                Panel("There", "1 while a worker's beats arrive, 0 after three were missed.", "short", {"{{worker}}": each("fedpipe_worker_up", "worker", WORKER)}, "state-timeline", ((0, RED), (1, GREEN)), 12),
                Panel("What each does", "The stage that a worker's last beat named.", "short", {"{{worker}}: {{stage}}": each("fedpipe_worker_stage", "worker, stage", WORKER)}, "state-timeline", (), 12),
                Panel("Since the last beat", "Beats come every three seconds, or twice an idle interval.", "s", {"{{worker}}": each("fedpipe_worker_beat_age_seconds", "worker", WORKER)}, steps=((9, YELLOW), (60, RED)), width=12),
                Panel("Without progress", "Time since a worker at work last made progress; 0 while it is idle. It is given up after three idle intervals.", "s", {"{{worker}}": each("fedpipe_worker_progress_age_seconds", "worker", WORKER)}, steps=((60, YELLOW), (180, RED)), width=12),
            ],
        ),
        Row(
            "Fast and full",
            [
                Panel("Speed", "Tokens a second of the present task so far.", "short", {"{{worker}}": each("fedpipe_worker_tokens_per_second", "worker", WORKER)}),
                Panel("Memory", "Heap in use as a share of what the worker may use.", "percentunit", {"{{worker}}": f"{each('fedpipe_worker_memory_bytes', 'worker', WORKER)} / {each('fedpipe_worker_memory_limit_bytes', 'worker', WORKER)}"}, steps=((0.8, YELLOW), (0.95, RED))),
                Panel("Limits of memory", "What each worker may use.", "bytes", {"{{worker}}": each("fedpipe_worker_memory_limit_bytes", "worker", WORKER)}),
                Panel("Tasks of each worker", "Tasks that wait for it, and the one that it works on.", "short", {"{{worker}}": each("fedpipe_worker_queue", "worker", WORKER)}, steps=((2, YELLOW), (10, RED))),
                Panel("Delivered again", "Tasks in a worker's hands that came more than once: it died, or stood still.", "short", {"{{worker}}": each("fedpipe_worker_redelivered", "worker", WORKER)}, steps=((1, YELLOW),)),
                Panel("Late", "1 while a worker is at an earlier round of a job than the others.", "short", {"{{worker}}": each("fedpipe_worker_late", "worker", WORKER)}, steps=((1, YELLOW),)),
            ],
        ),
        Row(
            "Workers whose own pages are scraped",
            [
                Panel("Tokens trained", "Over all workers that Prometheus reaches.", "short", {"tokens/s": rate("fedpipe_training_tokens_total")}),
                Panel("Time of a step", "Half of each worker's steps, and nineteen of twenty of all, took no longer.", "s", {"{{instance}}": quantile(0.5, "fedpipe_training_step_duration_seconds", "instance"), "all, 95 %": quantile(0.95, "fedpipe_training_step_duration_seconds")}),
                Panel("Training loss", "Mean per token of each worker's last steps, where they average enough records to be told.", "short", {"{{instance}}": f"fedpipe_training_loss{{{NAMESPACE}}}"}, least=None),
                Panel("Bytes moved", "Models, adapters and updates.", "Bps", {"{{direction}}": rate("fedpipe_transfer_bytes_total", "direction")}),
                Panel("Time of tasks", "Nineteen of twenty took no longer.", "s", {"{{kind}}": quantile(0.95, "fedpipe_task_duration_seconds", "kind")}),
                Panel("Peak against plan", "Peak of memory of the last round as a share of what the plan predicted.", "percentunit", {"{{instance}}": f"fedpipe_training_memory_peak_bytes{{{NAMESPACE}}} / fedpipe_training_memory_planned_bytes{{{NAMESPACE}}}"}, steps=((1.0, YELLOW), (1.1, RED))),
                Panel("Storage tried again", "Transfers of each worker that were tried again because storage was away.", "ops", {"{{instance}}": rate("fedpipe_storage_retries_total", "instance")}, steps=((0.01, YELLOW),)),
            ],
        ),
    ],
    {"worker": f"label_values(fedpipe_worker_up{{{NAMESPACE}}}, worker)"},
)

JOBS = Dashboard(
    "job",
    "fedpipe / Job",
    "One job: what it has learned, where its time goes, and why it waits",
    [
        Row(
            "Where it stands",
            [
                Panel("Name and phase", "The job's name, and what it is doing.", "short", {"{{name}}: {{phase}}": of_job("fedpipe_job_info", "name, phase")}, "stat", (), 6, 4),
                Panel("Round", "Rounds committed, of those that it asks for.", "short", {"committed": of_job("fedpipe_job_round"), "asked for": of_job("fedpipe_job_rounds")}, "stat", (), 6, 4),
                Panel("In this phase", "Time since the phase began.", "s", {"phase": of_job("fedpipe_job_phase_age_seconds")}, "stat", (), 4, 4),
                Panel("Standing still", "Time since its phase or the progress of a site on it changed.", "s", {"idle": of_job("fedpipe_job_idle_seconds")}, "stat", ((120, YELLOW), (600, RED)), 4, 4),
                Panel("Owner held up", "Time since its owner could not go on: a full disk, storage that is away.", "s", {"held": of_job("fedpipe_job_held_seconds")}, "stat", ((1, YELLOW), (120, RED)), 4, 4),
            ],
        ),
        Row(
            "Why are we waiting",
            [
                Panel("Whom it waits for", "A site and what it does; without a site, what is missing at the control plane: sites (queued), owner (no service holds the job), held (it cannot go on), resume (paused), or the service whose turn it is.", "short", {"{{worker}} {{what}}": of_job("fedpipe_job_waiting", "worker, what")}, "state-timeline", (), 24, 8),
            ],
        ),
        Row(
            "What it has learned",
            [
                Panel("Held-out loss", "Loss per token of the merged adapter on the sites' held-out records, after each scored round.", "short", {"loss": of_job("fedpipe_job_loss")}, least=None),
                Panel("Balanced accuracy", "Mean over the classes of the share answered right; a constant answer scores 1 by the number of classes. Only for jobs with choices.", "percentunit", {"accuracy": of_job("fedpipe_job_accuracy_ratio")}),
                Panel("Training loss of each site", "Mean over the steps of the last committed round.", "short", {"{{worker}}": of_job("fedpipe_site_loss", "worker")}, least=None),
                Panel("Share of the merge", "What each site's update weighed in the last round.", "percentunit", {"{{worker}}": of_job("fedpipe_site_weight_ratio", "worker")}),
                Panel("Energy dropped", "Share of the merged change's energy that the kept rank does not hold.", "percentunit", {"dropped": of_job("fedpipe_job_dropped_energy_ratio")}, steps=((0.2, YELLOW), (0.5, RED))),
                Panel("Gap of the plan", "Share by which the worst solved site's choice may be below its best; 0: proven.", "percentunit", {"gap": of_job("fedpipe_job_plan_gap_ratio")}, steps=((0.01, YELLOW), (0.1, RED))),
            ],
        ),
        Row(
            "Where its time goes",
            [
                Panel("A round", "From opening to commit; the part in which no site trained; the scoring that follows; and what the plan gives a round.", "s", {"round": of_job("fedpipe_job_round_duration_seconds"), "overhead": of_job("fedpipe_job_round_overhead_seconds"), "scoring": of_job("fedpipe_job_evaluation_duration_seconds"), "planned": of_job("fedpipe_job_planned_duration_seconds")}, width=12),
                Panel("Speed of each site", "Tokens a second in the last committed round.", "short", {"{{worker}}": of_job("fedpipe_site_tokens_per_second", "worker")}, width=6),
                Panel("Step of each site", "Mean time of a training step in the last committed round.", "s", {"{{worker}}": of_job("fedpipe_site_step_seconds", "worker")}, width=6),
            ],
        ),
        Row(
            "Plan against reality",
            [
                Panel("Computing", "Time that each site trained in the last committed round, and what its plan gives it.", "s", {"{{worker}}": of_job("fedpipe_site_compute_seconds", "worker"), "{{worker}} planned": of_job("fedpipe_site_planned_compute_seconds", "worker")}),
                Panel("Computing off plan", "Above 1.25 or below 0.75, and a second a round, a site has drifted.", "short", {"{{worker}}": f"{of_job('fedpipe_site_compute_seconds', 'worker')} / {of_job('fedpipe_site_planned_compute_seconds', 'worker')}"}, steps=((1.25, YELLOW), (2, RED))),
                Panel("Peak of memory", "Of each site in the last committed round, and what its plan predicts.", "bytes", {"{{worker}}": of_job("fedpipe_site_memory_peak_bytes", "worker"), "{{worker}} planned": of_job("fedpipe_site_planned_memory_bytes", "worker")}),
                Panel("Memory off plan", "Above 1.1, and 64 MiB, a site has drifted.", "short", {"{{worker}}": f"{of_job('fedpipe_site_memory_peak_bytes', 'worker')} / {of_job('fedpipe_site_planned_memory_bytes', 'worker')}"}, steps=((1.0, YELLOW), (1.1, RED))),
                Panel("Bytes sent", "By each site in the last committed round, and what its plan has.", "bytes", {"{{worker}}": of_job("fedpipe_site_upload_bytes", "worker"), "{{worker}} planned": of_job("fedpipe_site_planned_upload_bytes", "worker")}),
                Panel("Bytes fetched", "By each site in the last committed round; 0 where it had the merged adapter already.", "bytes", {"{{worker}}": of_job("fedpipe_site_download_bytes", "worker")}),
            ],
        ),
    ],
    {"job": f"label_values(fedpipe_job_info{{{NAMESPACE}}}, job_id)"},
)

OPERATIONS = Dashboard(
    "operations",
    "fedpipe / Operations",
    "Processes, queues, storage, the api, dead letters and errors",
    [
        Row(
            "Processes",
            [
                Panel("Jobs", "Jobs in each phase.", "short", {"{{phase}}": f"{each('fedpipe_jobs', 'phase')} > 0"}, width=6),
                Panel("Ready", "Conditions of readiness: 0 where a process lacks one.", "short", {"{{condition}}": f"min by (condition) (fedpipe_ready{{{NAMESPACE}}})"}, "state-timeline", ((0, RED), (1, GREEN)), 6),
                Panel("Builds", "Processes of each service and version.", "short", {"{{service}} {{version}}": f"count by (service, version) (fedpipe_build_info{{{NAMESPACE}}})"}, width=6),
                Panel("Memory", "Physical memory of each process.", "bytes", {"{{service}} {{instance}}": f"process_memory_usage_bytes{{{NAMESPACE}}} * on (namespace, instance) group_left (service) fedpipe_build_info{{{NAMESPACE}}}"}, width=6),
                Panel("Heap", "What each process asked its allocator for.", "bytes", {"{{service}} {{instance}}": f"fedpipe_process_heap_bytes{{{NAMESPACE}}} * on (namespace, instance) group_left (service) fedpipe_build_info{{{NAMESPACE}}}"}, width=6),
                Panel("Up for", "Time since each process started.", "s", {"{{service}} {{instance}}": f"process_uptime_seconds{{{NAMESPACE}}} * on (namespace, instance) group_left (service) fedpipe_build_info{{{NAMESPACE}}}"}, width=6),
                Panel("Messages handled", "Tasks of workers and grants of the api, by what became of them.", "ops", {"{{kind}} {{outcome}}": rate("fedpipe_messages_handled_total", "kind, outcome")}, width=6),
                Panel("Series left out", "Of jobs and workers, beyond the limit of what is shown.", "short", {"series": f"max(fedpipe_telemetry_series_left_out{{{NAMESPACE}}})"}, steps=((1, YELLOW),), width=6),
                Panel("Telemetry pushed", "Spans and log records that a collector took; 0 where none is configured.", "ops", {"spans": rate("otel_sdk_exporter_span_exported_total", matchers=DONE), "log records": rate("otel_sdk_exporter_log_exported_total", matchers=DONE)}, width=6),
                Panel("Telemetry lost", "Spans and log records that found no room because the collector was slow, and that it did not take.", "ops", {"spans, no room": rate("otel_sdk_processor_span_processed_total", matchers=LOST), "log records, no room": rate("otel_sdk_processor_log_processed_total", matchers=LOST), "spans, not taken": rate("otel_sdk_exporter_span_exported_total", matchers=LOST), "log records, not taken": rate("otel_sdk_exporter_log_exported_total", matchers=LOST)}, steps=((0.001, YELLOW),), width=6),
            ],
        ),
        Row(
            "Queues",
            [
                Panel("Messages", "In each NATS stream; tasks are gone once they are done, the others are a history of 30 days.", "short", {"{{stream}}": each("fedpipe_queue_messages", "stream")}, width=6),
                Panel("Bytes", "In each NATS stream.", "bytes", {"{{stream}}": each("fedpipe_queue_bytes", "stream")}, width=6),
                Panel("Dead letters", "Messages that could not be handled, of the last 30 days.", "short", {"dead": each("fedpipe_queue_messages", "stream", ', stream="FEDPIPE_DEAD"'), "new": rate("fedpipe_messages_dead_total")}, steps=((1, RED),), width=6),
                Panel("Tasks delivered again", "Of workers whose pages are scraped, and in anybody's hands at present.", "short", {"{{kind}} a second": rate("fedpipe_messages_redelivered_total", "kind"), "{{worker}}": each("fedpipe_worker_redelivered", "worker")}, steps=((1, YELLOW),), width=6),
            ],
        ),
        Row(
            "The api",
            [
                Panel("Own errors", "Share of the answers that are the api's own errors (5xx).", "percentunit", {"errors": f"1 - {answers(NOT_OURS)} / {answers()}"}, steps=((0.01, YELLOW), (0.05, RED)), width=6),
                Panel("Answers", "A second, by status.", "reqps", {"{{http_response_status_code}}": f"sum by (http_response_status_code) (rate(http_server_request_duration_seconds_count{{{NAMESPACE}}}[{RATE}]) {OWN})"}),
                Panel("Routes", "Answers a second, by route.", "reqps", {"{{http_request_method}} {{http_route}}": f"sum by (http_request_method, http_route) (rate(http_server_request_duration_seconds_count{{{NAMESPACE}}}[{RATE}]) {OWN})"}),
                Panel("Time to answer", "Half, and nineteen of twenty, began no later.", "s", {"half": f"histogram_quantile(0.5, sum by (le) (rate(http_server_request_duration_seconds_bucket{{{NAMESPACE}}}[{RATE}]) {OWN}))", "95 %": f"histogram_quantile(0.95, sum by (le) (rate(http_server_request_duration_seconds_bucket{{{NAMESPACE}}}[{RATE}]) {OWN}))"}, steps=((1, YELLOW), (10, RED))),
            ],
        ),
        Row(
            "Storage",
            [
                Panel("Operations", "A second, over all processes that are scraped.", "ops", {"{{operation}}": rate("fedpipe_storage_operation_duration_seconds_count", "operation")}),
                Panel("Time to answer", "Nineteen of twenty answers began no later, own retries included.", "s", {"{{operation}}": quantile(0.95, "fedpipe_storage_operation_duration_seconds", "operation")}, steps=((1, YELLOW), (10, RED))),
                Panel("Errors", "Operations that storage did not answer, or refused.", "ops", {"{{operation}}": rate("fedpipe_storage_errors_total", "operation")}, steps=((0.001, RED),)),
            ],
        ),
        Row(
            "Rounds and plans",
            [
                Panel("Rounds", "Half of the rounds, and nineteen of twenty, took no longer; and the part in which nobody trained.", "s", {"half": quantile(0.5, "fedpipe_round_duration_seconds"), "95 %": quantile(0.95, "fedpipe_round_duration_seconds"), "overhead, 95 %": quantile(0.95, "fedpipe_round_overhead_seconds")}, width=6),
                Panel("Rounds committed", "A second, over all jobs.", "ops", {"rounds": rate("fedpipe_rounds_total")}, width=6),
                Panel("Merging", "Bytes of updates merged in a second of merging.", "Bps", {"merged": f"{rate('fedpipe_fold_bytes_total')} / {rate('fedpipe_fold_duration_seconds_sum')}"}, width=6),
                Panel("Updates", "Merged, and refused by reason, a second.", "ops", {"merged": rate("fedpipe_fold_updates_total"), "refused: {{reason}}": rate("fedpipe_updates_refused_total", "reason")}, width=6),
                Panel("Energy dropped", "By the last merge of each aggregator.", "percentunit", {"{{instance}}": f"fedpipe_round_dropped_energy_ratio{{{NAMESPACE}}}"}, steps=((0.2, YELLOW), (0.5, RED)), width=6),
                Panel("Solving", "Time to make a plan, or to find that the present one stays: of all since the planners started, for there are few.", "s", {"half": since_start(0.5, "fedpipe_plan_solve_duration_seconds"), "95 %": since_start(0.95, "fedpipe_plan_solve_duration_seconds")}, steps=((10, YELLOW),), width=6),
                Panel("Plans", "A second, by what became of them; and how far the last one may be from the best.", "short", {"{{outcome}}": rate("fedpipe_plans_total", "outcome"), "gap": f"max(fedpipe_plan_gap_ratio{{{NAMESPACE}}})"}, width=6),
                Panel("Drift", "Sites whose time or memory parted from what was predicted, a second.", "ops", {"{{quantity}}": rate("fedpipe_drifts_total", "quantity")}, steps=((0.0001, YELLOW),), width=6),
            ],
        ),
    ],
)

ALL = (FLEET, JOBS, OPERATIONS)


def expressions(dashboard: Dashboard) -> list[tuple[str, str]]:
    """(panel, expression) of every target."""
    panels = [panel for row in dashboard.rows for panel in row.panels]
    return [(panel.title, expression) for panel in panels for expression in panel.targets.values()]


def metrics(expression: str) -> set[str]:
    """The names of the series that an expression reads."""
    return set(re.findall(r"\b(?:fedpipe|http_server|otel_sdk|process)_\w+", expression))


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
    steps = [{"color": GREEN, "value": None}] + [{"color": color, "value": value} for value, color in one.steps]
    defaults = {"unit": one.unit, "thresholds": {"mode": "absolute", "steps": steps}, "color": {"mode": "thresholds" if one.kind != "timeseries" else "palette-classic"}}
    if one.least is not None:
        defaults["min"] = one.least
    if one.kind == "timeseries":
        lines = {"drawStyle": "line", "lineWidth": 1, "fillOpacity": 8, "showPoints": "auto", "spanNulls": False, "thresholdsStyle": {"mode": "dashed" if one.steps else "off"}}
        defaults["custom"] = lines
    return {
        "id": number,
        "type": one.kind,
        "title": one.title,
        "description": one.description,
        "datasource": SOURCE,
        "gridPos": place,
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "options": OPTIONS[one.kind],
        "targets": targets,
    }


OPTIONS = {
    "timeseries": {"legend": {"displayMode": "list", "placement": "bottom", "showLegend": True, "calcs": []}, "tooltip": {"mode": "multi", "sort": "desc"}},
    "stat": {"reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False}, "orientation": "auto", "textMode": "value_and_name", "colorMode": "value", "graphMode": "none", "justifyMode": "auto", "wideLayout": True, "showPercentChange": False, "percentChangeColorMode": "standard"},
    "state-timeline": {"mergeValues": True, "showValue": "never", "alignValue": "left", "rowHeight": 0.8, "legend": {"displayMode": "list", "placement": "bottom", "showLegend": False, "calcs": []}, "tooltip": {"mode": "single", "sort": "none"}},
}
