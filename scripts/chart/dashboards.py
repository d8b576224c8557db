"""The Grafana dashboards, written down once and small; generate.py makes the JSON of helm/fedpipe/dashboards from it.

Promises: every panel says what it shows, in which unit, and beyond which limit an operator looks closer (yellow) or acts (red), and why that is the
limit; every expression goes through the dashboard's namespace. What an expression may name stands in docs/metrics.md. Where a limit is an alert's
bound or a default of the chart, tests/test_limits.py holds the two together.
"""

import re

from grafana import ANY, BLUE, DARK_ORANGE, GREEN, ORANGE, RED, YELLOW, Dashboard, Panel, Row, stat, timeline

# Several processes of the api say the same of jobs and workers, hence `max`; Grafana fills in namespace and interval.
NAMESPACE = 'namespace=~"$namespace"'
RATE = "$__rate_interval"

# Seconds: the chart's idle interval; a worker's beats.
IDLE, BEAT = 60, 3
TOKENS, NATS = "suffix:tokens/s", "suffix:nats"
FULL = ((0.9, YELLOW), (0.98, RED))  # a plan keeps 2 % of a worker's memory free
STEP = ((IDLE // 3, YELLOW), (IDLE, RED))
PACE = ((1, YELLOW), (10, GREEN))  # of a worker, red below
ROUND = ((1200, YELLOW), (3600, RED))
GUESS = ((5, YELLOW), (10, RED))
LINE = ((75_000_000, YELLOW), (750_000_000, RED))
ENERGY = ((0.2, YELLOW), (0.5, RED))
GAP = ((0.01, YELLOW), (0.1, RED))
ANSWER = ((1, YELLOW), (10, RED))
SOME, BAD = ((ANY, YELLOW),), ((ANY, RED),)
CROWD = ((100, YELLOW),)
# The chart's limits of memory: profiler, api, planner, aggregator.
CONTAINERS = ((256 << 20, YELLOW), (512 << 20, ORANGE), (1 << 30, DARK_ORANGE), (4 << 30, RED))

WHY_PACE = "At 10 a step of four rows of 256 tokens takes a minute and a half."
WHY_STEP = f"A site is looked at again after {IDLE} s without progress, the chart's idle interval."
WHY_ROUND = "A site that is lost takes its part of the round with it: let rounds be shorter. More than an hour is not told apart."
WHY_GUESS = "A pretrained model begins at two to four; 10 is a guess among 22 000 tokens, so the learning rate is too large, or the text is none that the model knows."
WHY_LINE = "A line of 10 Mbit/s takes a minute for 75 MB and ten for 750 MB."
WHY_GAP = "Predictions are promised to 15 %: a gap of 1 % is far within that, one of 10 % is not."
WHY_CONTAINERS = "The lines are the limits that the chart gives a profiler, an api, a planner and an aggregator; workers have limits of their own (Fleet)."


def each(metric: str, by: str, matchers: str = "") -> str:
    """A metric of jobs or workers as one series for each value of `by`, whichever replica of the api says it."""
    return f"max by ({by}) ({metric}{{{NAMESPACE}{matchers}}})"


def rate(metric: str, by: str = "", matchers: str = "", function: str = "rate") -> str:
    """How fast a counter grows, over all processes."""
    grouped = f" by ({by})" if by else ""
    return f"sum{grouped} ({function}({metric}{{{NAMESPACE}{matchers}}}[{RATE}]))"


def grown(metric: str, by: str = "") -> str:
    """By how much a counter has grown since the point before: of what is to be seen beside a number that stands."""
    return rate(metric, by, function="increase")


def climbed(metric: str, by: str, matchers: str = "") -> str:
    """By how much what the api shows of a site's own count has grown since the point before; the site's process begins with 0."""
    return f"max by ({by}) (increase({metric}{{{NAMESPACE}{matchers}}}[{RATE}]))"


def quantile(share: float, metric: str, by: str = "") -> str:
    """A quantile of a histogram."""
    inner = f"le, {by}" if by else "le"
    return f"histogram_quantile({share}, {rate(f'{metric}_bucket', inner)})"


def since_start(share: float, metric: str) -> str:
    """A quantile of all that a histogram has seen: of what happens too seldom for a rate."""
    return f"histogram_quantile({share}, sum by (le) ({metric}_bucket{{{NAMESPACE}}}))"


def weighed(metric: str, by: str, label: str, weights: dict[int, str], matchers: str = "") -> str:
    """A metric that is 1 for a state, as how bad the state is: the weight of the first that `label` matches, otherwise 1."""
    chosen = [f"{weight} * " + each(metric, by, f'{matchers}, {label}=~"{states}"') for weight, states in weights.items()]
    return " or ".join([*chosen, each(metric, by, matchers)])


OWN = f"* on (namespace, instance) group_left () fedpipe_build_info{{{NAMESPACE}}}"
OF_SERVICE = f"* on (namespace, instance) group_left (service) fedpipe_build_info{{{NAMESPACE}}}"
DONE, LOST = ', error_type=""', ', error_type!=""'
WORKER = ', worker=~"$worker"'
JOB = ', job_id="$job"'
NOT_OURS = ', http_response_status_code!~"5.."'


def answers(matchers: str = "", by: str = "") -> str:
    """Answers a second of all api processes."""
    grouped = f" by ({by})" if by else ""
    return f"sum{grouped} (rate(http_server_request_duration_seconds_count{{{NAMESPACE}{matchers}}}[{RATE}]) {OWN})"


def answered(share: float) -> str:
    """A quantile of the time until an answer of the api begins."""
    return f"histogram_quantile({share}, sum by (le) (rate(http_server_request_duration_seconds_bucket{{{NAMESPACE}}}[{RATE}]) {OWN}))"


def of_job(metric: str, by: str = "job_id") -> str:
    """A metric of the chosen job."""
    return each(metric, by, JOB)


def of_site(metric: str) -> str:
    """A metric of each site of the chosen job."""
    return of_job(metric, "worker")


FLEET = Dashboard(
    "fleet",
    "fedpipe / Fleet",
    "Who is there, fast, full and late",
    [
        Row(
            "The fleet",
            [
                stat("Workers there", "Workers whose beats arrive.", "short", {"there": f"sum({each('fedpipe_worker_up', 'worker')})"}, ((1, GREEN),), base=RED),
                stat("Workers gone", "Registered workers that missed three beats.", "short", {"gone": f"count({each('fedpipe_worker_up', 'worker')}) - sum({each('fedpipe_worker_up', 'worker')})"}, ((1, RED),)),
                stat("Workers late", "Workers that are at an earlier round of a job than the others.", "short", {"late": f"sum({each('fedpipe_worker_late', 'worker')})"}, ((1, YELLOW),)),
                stat("Tokens per second", "Speed of all tasks under way together; nothing to see while there are none. Below 1 they are there and do not get on.", TOKENS, {"fleet": f"sum({each('fedpipe_worker_tokens_per_second', 'worker')})"}, ((1, GREEN),), base=YELLOW),
                stat("Tasks for each worker", "Tasks in all workers' queues, those being worked on included, by the workers that are there. From 2 on tasks wait everywhere.", "short", {"tasks": f"sum({each('fedpipe_worker_queue', 'worker')}) / sum({each('fedpipe_worker_up', 'worker')})"}, ((2, YELLOW), (10, RED))),
                stat("Left out", "Series of jobs and workers beyond the limit of what is shown: this dashboard does not have all.", "short", {"series": f"max(fedpipe_telemetry_series_left_out{{{NAMESPACE}}})"}, ((1, YELLOW),)),
            ],
        ),
        Row(
            "Who is there",
            [
                timeline("There", "Whether a worker's beats arrive, or three were missed.", {"{{worker}}": each("fedpipe_worker_up", "worker", WORKER)}, ((1, GREEN),), "Red while they do not.", "bool_yes_no", base=RED, width=12, alert="FedpipeWorkerGone"),
                timeline("What each does", "The stage that a worker's last beat named.", {"{{worker}}: {{stage}}": weighed("fedpipe_worker_stage", "worker, stage", "stage", {0: "idle", 2: "stopping"}, WORKER)}, ((1, GREEN), (2, YELLOW)), "Blue while it is idle, green at work, yellow while it ends.", base=BLUE, width=12),
                Panel("Since the last beat", f"Beats come every {BEAT} s, or twice an idle interval. After three it counts as gone.", "s", {"{{worker}}": each("fedpipe_worker_beat_age_seconds", "worker", WORKER)}, ((3 * BEAT, YELLOW), (IDLE, RED)), width=12),
                Panel("Without progress", "Time since a worker at work last made progress; 0 while it is idle. Its task comes again after an idle interval, and it is given up after three.", "s", {"{{worker}}": each("fedpipe_worker_progress_age_seconds", "worker", WORKER)}, ((IDLE, YELLOW), (3 * IDLE, RED)), width=12),
            ],
        ),
        Row(
            "Fast and full",
            [
                Panel("Speed", f"Tokens a second of the present task so far. {WHY_PACE}", TOKENS, {"{{worker}}": each("fedpipe_worker_tokens_per_second", "worker", WORKER)}, PACE, base=RED),
                Panel("Memory", "Heap in use as a share of what the worker may use. A plan fills 98 % of it at most.", "percentunit", {"{{worker}}": f"{each('fedpipe_worker_memory_bytes', 'worker', WORKER)} / {each('fedpipe_worker_memory_limit_bytes', 'worker', WORKER)}"}, FULL),
                Panel("Limits of memory", "What each worker may use. SmolLM2-135M takes 350 MiB in 4 bits and 1.4 GiB in 32 (benches/results/engine.md); what has less trains next to nothing.", "bytes", {"{{worker}}": each("fedpipe_worker_memory_limit_bytes", "worker", WORKER)}, ((512 << 20, YELLOW), (2 << 30, GREEN)), base=RED),
                Panel("Tasks of each worker", "Tasks that wait for it, and the one that it works on.", "short", {"{{worker}}": each("fedpipe_worker_queue", "worker", WORKER)}, ((2, YELLOW), (10, RED)), width=6),
                Panel("Delivered again", "Tasks in a worker's hands that came more than once: it died, or stood still.", "short", {"{{worker}}": each("fedpipe_worker_redelivered", "worker", WORKER)}, ((1, YELLOW),), width=6, alert="FedpipeTaskRedelivered"),
                Panel("Tried again", "New attempts of each worker, wherever it is, as it beats: storage was away, or the bus did not take its report.", "short", {"{{worker}}": climbed("fedpipe_worker_retries", "worker", WORKER)}, SOME, width=6),
                Panel("Late", "1 while a worker is at an earlier round of a job than the others.", "short", {"{{worker}}": each("fedpipe_worker_late", "worker", WORKER)}, ((1, YELLOW),), width=6),
            ],
        ),
        Row(
            "Workers whose own pages are scraped",
            [
                Panel("Tokens trained", "Over all workers that Prometheus reaches. Below 1 nobody trains: right while there is no job.", TOKENS, {"tokens/s": rate("fedpipe_training_tokens_total")}, ((1, GREEN),), base=YELLOW),
                Panel("Time of a step", f"Half of each worker's steps, and nineteen of twenty of all, took no longer. {WHY_STEP}", "s", {"{{instance}}": quantile(0.5, "fedpipe_training_step_duration_seconds", "instance"), "all, 95 %": quantile(0.95, "fedpipe_training_step_duration_seconds")}, STEP),
                Panel("Training loss", f"Mean per token of each worker's last steps, where they average enough records to be told. {WHY_GUESS}", NATS, {"{{instance}}": f"fedpipe_training_loss{{{NAMESPACE}}}"}, GUESS, least=None),
                Panel("Bytes moved", "Models, adapters and updates, over all these workers. 100 MB/s is most of what a line of 1 Gbit/s before the storage carries.", "Bps", {"{{direction}}": rate("fedpipe_transfer_bytes_total", "direction")}, ((100_000_000, YELLOW),)),
                Panel("Time of tasks", f"Nineteen of twenty took no longer. {WHY_ROUND}", "s", {"{{kind}}": quantile(0.95, "fedpipe_task_duration_seconds", "kind")}, ROUND),
                Panel("Peak against plan", "Peak of memory of the last round as a share of what the plan predicted. Above 110 %, and 64 MiB, a site has drifted.", "percentunit", {"{{instance}}": f"fedpipe_training_memory_peak_bytes{{{NAMESPACE}}} / fedpipe_training_memory_planned_bytes{{{NAMESPACE}}}"}, ((1.0, YELLOW), (1.1, RED))),
                Panel("Storage tried again", "Transfers of each worker that were tried again because storage was away.", "ops", {"{{instance}}": rate("fedpipe_storage_retries_total", "instance")}, SOME),
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
                stat("Name and phase", "The job's name, and what it is doing.", "short", {"{{name}}: {{phase}}": weighed("fedpipe_job_info", "name, phase", "phase", {3: "failed", 2: "paused|cancelled"}, JOB)}, ((2, YELLOW), (3, RED)), width=6, colours="Yellow while it is paused or was cancelled, red if it failed.", text="name"),
                stat("Round", "Rounds committed, of those that it asks for. Before the first there is nothing to fetch.", "short", {"committed": of_job("fedpipe_job_round"), "asked for": of_job("fedpipe_job_rounds")}, ((1, GREEN),), width=6, base=YELLOW),
                stat("In this phase", "Time since the phase began. After an hour, look whether it stands still.", "s", {"phase": of_job("fedpipe_job_phase_age_seconds")}, ((3600, YELLOW),)),
                stat("Standing still", "Time since its phase or the progress of a site on it changed.", "s", {"idle": of_job("fedpipe_job_idle_seconds")}, ((2 * IDLE, YELLOW), (600, RED)), alert="FedpipeJobStuck"),
                stat("Owner held up", "Time since its owner could not go on: a full disk, storage that is away.", "s", {"held": of_job("fedpipe_job_held_seconds")}, ((1, YELLOW), (120, RED)), alert="FedpipeJobHeld"),
            ],
        ),
        Row(
            "Why are we waiting",
            [
                timeline(
                    "Whom it waits for",
                    "A site and what it does; without a site, what is missing at the control plane: sites (queued), owner (no service holds the job), held (it cannot go on), resume (paused), or the service whose turn it is.",
                    {"{{worker}} {{what}}": weighed("fedpipe_job_waiting", "worker, what", "what", {3: "unreachable|silent|owner|held", 2: "elsewhere|sites|resume|stopping"}, JOB)},
                    ((2, YELLOW), (3, RED)),
                    "Yellow while it waits for somebody to begin, red while somebody is away or cannot.",
                    width=24,
                    height=8,
                ),
            ],
        ),
        Row(
            "What it has learned",
            [
                Panel("Held-out loss", f"Loss per token of the merged adapter on the sites' held-out records, after each scored round. {WHY_GUESS}", NATS, {"loss": of_job("fedpipe_job_loss")}, GUESS, least=None),
                Panel("Balanced accuracy", "Mean over the classes of the share answered right; a constant answer scores 1 by the number of classes, half of two. Only for jobs with choices.", "percentunit", {"accuracy": of_job("fedpipe_job_accuracy_ratio")}, ((0.5, GREEN),), base=YELLOW),
                Panel("Training loss of each site", f"Mean over the steps of the last committed round. {WHY_GUESS}", NATS, {"{{worker}}": of_site("fedpipe_site_loss")}, GUESS, least=None),
                Panel("Share of the merge", "What each site's update weighed in the last round. At three quarters the adapter is all but that site's own.", "percentunit", {"{{worker}}": of_site("fedpipe_site_weight_ratio")}, ((0.75, YELLOW),)),
                Panel("Energy dropped", "Share of the merged change's energy that the kept rank does not hold: from a half on, most of what the sites learned is lost (a larger adapter.rank_max, or another rule).", "percentunit", {"dropped": of_job("fedpipe_job_dropped_energy_ratio")}, ENERGY),
                Panel("Gap of the plan", f"Share by which the worst solved site's choice may be below its best; 0: proven. {WHY_GAP}", "percentunit", {"gap": of_job("fedpipe_job_plan_gap_ratio")}, GAP),
            ],
        ),
        Row(
            "Where its time goes",
            [
                Panel("A round", f"From opening to commit; the part in which no site trained; the scoring that follows; and what the plan gives a round. {WHY_ROUND}", "s", {"round": of_job("fedpipe_job_round_duration_seconds"), "overhead": of_job("fedpipe_job_round_overhead_seconds"), "scoring": of_job("fedpipe_job_evaluation_duration_seconds"), "planned": of_job("fedpipe_job_planned_duration_seconds")}, ROUND, width=12),
                Panel("Speed of each site", f"Tokens a second in the last committed round. {WHY_PACE}", TOKENS, {"{{worker}}": of_site("fedpipe_site_tokens_per_second")}, PACE, width=6, base=RED),
                Panel("Step of each site", f"Mean time of a training step in the last committed round. {WHY_STEP}", "s", {"{{worker}}": of_site("fedpipe_site_step_seconds")}, STEP, width=6),
            ],
        ),
        Row(
            "Plan against reality",
            [
                Panel("Computing", f"Time that each site trained in the last committed round, and what its plan gives it. {WHY_ROUND}", "s", {"{{worker}}": of_site("fedpipe_site_compute_seconds"), "{{worker}} planned": of_site("fedpipe_site_planned_compute_seconds")}, ROUND),
                Panel("Computing off plan", "What was, by what was planned. A quarter off either way, and a second a round, a site has drifted.", "percentunit", {"{{worker}}": f"{of_site('fedpipe_site_compute_seconds')} / {of_site('fedpipe_site_planned_compute_seconds')}"}, ((0.75, GREEN), (1.25, YELLOW), (2, RED)), base=YELLOW),
                Panel("Peak of memory", "Of each site in the last committed round, and what its plan predicts, as shares of what the site may use. A plan fills 98 % of it at most.", "percentunit", {"{{worker}}": f"{of_site('fedpipe_site_memory_peak_bytes')} / {each('fedpipe_worker_memory_limit_bytes', 'worker')}", "{{worker}} planned": f"{of_site('fedpipe_site_planned_memory_bytes')} / {each('fedpipe_worker_memory_limit_bytes', 'worker')}"}, FULL),
                Panel("Memory off plan", "The peak that was, by what was planned. Above 110 %, and 64 MiB, a site has drifted.", "percentunit", {"{{worker}}": f"{of_site('fedpipe_site_memory_peak_bytes')} / {of_site('fedpipe_site_planned_memory_bytes')}"}, ((1.0, YELLOW), (1.1, RED))),
                Panel("Bytes sent", f"By each site in the last committed round, and what its plan has. {WHY_LINE}", "decbytes", {"{{worker}}": of_site("fedpipe_site_upload_bytes"), "{{worker}} planned": of_site("fedpipe_site_planned_upload_bytes")}, LINE),
                Panel("Bytes fetched", f"By each site in the last committed round; 0 where it had the merged adapter already. {WHY_LINE}", "decbytes", {"{{worker}}": of_site("fedpipe_site_download_bytes")}, LINE),
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
                Panel("Jobs", "Jobs in each phase. Sixteen that have not ended find room on the Job dashboard; of a thousand the api takes no more (api.limits.activeJobs).", "short", {"{{phase}}": f"{each('fedpipe_jobs', 'phase')} > 0"}, ((16, YELLOW), (1000, RED)), width=6),
                timeline("Ready", "Conditions of readiness, over all processes.", {"{{condition}}": f"min by (condition) (fedpipe_ready{{{NAMESPACE}}})"}, ((1, GREEN),), "Red where a process lacks one.", "bool_yes_no", base=RED, width=6, alert="FedpipeNotReady"),
                Panel("Builds", "Share of each service's processes that run a version. Below 100 % an update is under way, or one did not get through.", "percentunit", {"{{service}} {{version}}": f"count by (service, version) (fedpipe_build_info{{{NAMESPACE}}}) / on (service) group_left () count by (service) (fedpipe_build_info{{{NAMESPACE}}})"}, ((1, GREEN),), width=6, base=YELLOW),
                Panel("Memory", f"Physical memory of each process. {WHY_CONTAINERS}", "bytes", {"{{service}} {{instance}}": f"process_memory_usage_bytes{{{NAMESPACE}}} {OF_SERVICE}"}, CONTAINERS, width=6),
                Panel("Heap", f"What each process asked its allocator for. {WHY_CONTAINERS}", "bytes", {"{{service}} {{instance}}": f"fedpipe_process_heap_bytes{{{NAMESPACE}}} {OF_SERVICE}"}, CONTAINERS, width=6),
                Panel("Up for", "Time since each process started. What is young again and again dies again and again: its log and its pod's last state say why.", "s", {"{{service}} {{instance}}": f"process_uptime_seconds{{{NAMESPACE}}} {OF_SERVICE}"}, ((300, GREEN),), width=6, base=YELLOW),
                Panel("Messages handled", "Tasks of workers and grants of the api, by what became of them. More than a site needs: some worker asks again and again.", "ops", {"{{kind}} {{outcome}}": rate("fedpipe_messages_handled_total", "kind, outcome")}, CROWD, width=6),
                Panel("Series left out", "Of jobs and workers, beyond the limit of what is shown.", "short", {"series": f"max(fedpipe_telemetry_series_left_out{{{NAMESPACE}}})"}, ((1, YELLOW),), width=6),
                Panel("Telemetry pushed", "Spans and log records that a collector took; 0 where none is configured. A process's queue holds 2048 and is emptied every five seconds: at 400 a second it is full.", "ops", {"spans": rate("otel_sdk_exporter_span_exported_total", matchers=DONE), "log records": rate("otel_sdk_exporter_log_exported_total", matchers=DONE)}, ((400, YELLOW),), width=12),
                Panel("Telemetry lost", "Spans and log records that found no room because the collector was slow, and that it did not take.", "ops", {"spans, no room": rate("otel_sdk_processor_span_processed_total", matchers=LOST), "log records, no room": rate("otel_sdk_processor_log_processed_total", matchers=LOST), "spans, not taken": rate("otel_sdk_exporter_span_exported_total", matchers=LOST), "log records, not taken": rate("otel_sdk_exporter_log_exported_total", matchers=LOST)}, SOME, width=12, alert="FedpipeTelemetryLost"),
            ],
        ),
        Row(
            "Queues",
            [
                Panel("Messages", "In each NATS stream; tasks are gone once they are done, the others are a history of 30 days. Each has a subject of its own, which the server holds in memory.", "short", {"{{stream}}": each("fedpipe_queue_messages", "stream")}, ((1_000_000, YELLOW),), width=6),
                Panel("Bytes", "In each NATS stream. The chart's server keeps 8 GiB of all together (nats.storage.maxBytes); one that is full takes no message.", "bytes", {"{{stream}}": each("fedpipe_queue_bytes", "stream")}, ((4 << 30, YELLOW), (7 << 30, RED)), width=6),
                Panel("Dead letters", "Messages that could not be handled, of the last 30 days, and new ones.", "short", {"dead": each("fedpipe_queue_messages", "stream", ', stream="FEDPIPE_DEAD"'), "new": grown("fedpipe_messages_dead_total")}, ((1, RED),), width=6, alert="FedpipeDeadLetters"),
                Panel("Tasks delivered again", "New ones of workers whose pages are scraped, and those in anybody's hands at present.", "short", {"new: {{kind}}": grown("fedpipe_messages_redelivered_total", "kind"), "{{worker}}": each("fedpipe_worker_redelivered", "worker")}, ((1, YELLOW),), width=6, alert="FedpipeTaskRedelivered"),
            ],
        ),
        Row(
            "The api",
            [
                Panel("Own errors", "Share of the answers that are the api's own errors (5xx).", "percentunit", {"errors": f"1 - {answers(NOT_OURS)} / {answers()}"}, ((0.01, YELLOW), (0.05, RED)), width=6, alert="FedpipeApiErrors"),
                Panel("Answers", "A second, by status. More than people and sites ask: some client asks without a pause.", "reqps", {"{{http_response_status_code}}": answers(by="http_response_status_code")}, CROWD, width=6),
                Panel("Routes", "Answers a second, by route: which one it is that is asked without a pause.", "reqps", {"{{http_request_method}} {{http_route}}": answers(by="http_request_method, http_route")}, CROWD, width=6),
                Panel("Time to answer", "Half, and nineteen of twenty, began no later. After a minute the api gives up (api.limits.requestTimeoutMs).", "s", {"half": answered(0.5), "95 %": answered(0.95)}, ANSWER, width=6),
            ],
        ),
        Row(
            "Storage",
            [
                Panel("Operations", "A second, over all processes that are scraped. Amazon's S3 lets a prefix have 3500 puts a second.", "ops", {"{{operation}}": rate("fedpipe_storage_operation_duration_seconds_count", "operation")}, ((1000, YELLOW), (3500, RED))),
                Panel("Time to answer", "Nineteen of twenty answers began no later, own retries included.", "s", {"{{operation}}": quantile(0.95, "fedpipe_storage_operation_duration_seconds", "operation")}, ANSWER),
                Panel("Errors", "Operations that storage did not answer, or refused.", "ops", {"{{operation}}": rate("fedpipe_storage_errors_total", "operation")}, BAD, alert="FedpipeStorageErrors"),
            ],
        ),
        Row(
            "Rounds and plans",
            [
                Panel("Rounds", f"Half of the rounds, and nineteen of twenty, took no longer; and the part in which nobody trained. {WHY_ROUND}", "s", {"half": quantile(0.5, "fedpipe_round_duration_seconds"), "95 %": quantile(0.95, "fedpipe_round_duration_seconds"), "overhead, 95 %": quantile(0.95, "fedpipe_round_overhead_seconds")}, ROUND, width=6),
                Panel("Rounds committed", "A second, over all jobs. Where a round takes less than a second, most of it is overhead: let sites make more steps.", "ops", {"rounds": rate("fedpipe_rounds_total")}, ((1, YELLOW),), width=6),
                Panel("Merging", "Bytes of updates merged in a second of merging. The slowest rule merges 60 MB/s on one core (benches/results/federation.md); an aggregator that is far below lacks cores, or waits for its disk.", "Bps", {"merged": f"{rate('fedpipe_fold_bytes_total')} / {rate('fedpipe_fold_duration_seconds_sum')}"}, ((10_000_000, YELLOW), (50_000_000, GREEN)), width=6, base=RED),
                Panel("Updates merged", "A second, over all jobs. About ten of SmolLM2-135M at rank 16 are what one core merges.", "ops", {"merged": rate("fedpipe_fold_updates_total")}, ((10, YELLOW),), width=6),
                Panel("Updates refused", "A second, by reason: an adapter, or scalars, did not pass the checks, or a report could not be read.", "ops", {"{{reason}}": rate("fedpipe_updates_refused_total", "reason")}, BAD, width=6, alert="FedpipeUpdatesRefused"),
                Panel("Energy dropped", "By the last merge of each aggregator: the share that the kept rank does not hold.", "percentunit", {"{{instance}}": f"fedpipe_round_dropped_energy_ratio{{{NAMESPACE}}}"}, ENERGY, width=6),
                Panel("Solving", "Time to make a plan, or to find that the present one stays: of all since the planners started, for there are few. Ten thousand workers take four seconds (benches/results/federation.md).", "s", {"half": since_start(0.5, "fedpipe_plan_solve_duration_seconds"), "95 %": since_start(0.95, "fedpipe_plan_solve_duration_seconds")}, ((10, YELLOW),), width=6),
                Panel("Plans", "Made, and looked at and kept, a second. A job stops between two rounds for it: one in ten seconds means that plans are looked at again and again.", "ops", {"{{outcome}}": rate("fedpipe_plans_total", "outcome", ', outcome!="impossible"')}, ((0.1, YELLOW),), width=6),
                Panel("Plans impossible", "A second: a job that has no plan yet fails and says what it would have needed, one that runs keeps its plan.", "ops", {"impossible": rate("fedpipe_plans_total", matchers=', outcome="impossible"')}, SOME, width=8),
                Panel("Gap of the last plan", f"Share by which its worst solved site may be below the best choice; 0: proven. {WHY_GAP}", "percentunit", {"gap": f"max(fedpipe_plan_gap_ratio{{{NAMESPACE}}})"}, GAP, width=8),
                Panel("Drift", "Sites whose time or memory parted from what was predicted, and jobs whose weights came to matter otherwise, a second.", "ops", {"{{quantity}}": rate("fedpipe_drifts_total", "quantity")}, SOME, width=8, alert="FedpipeDrift"),
            ],
        ),
    ],
)

ALL = (FLEET, JOBS, OPERATIONS)


def metrics(expression: str) -> set[str]:
    """The names of the series that an expression reads."""
    return set(re.findall(r"\b(?:fedpipe|http_server|otel_sdk|process)_\w+", expression))
