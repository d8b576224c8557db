"""Runs and reports of the zeroth-order parts of the ablation, made up for their tests."""


def run(loss: float, exact: float | None = 0.7) -> dict:
    """A run whose loss falls in a straight line from 3, and whose balanced accuracy is `exact` all along."""
    scores = lambda found: {"loss": found, "balanced_accuracy": exact, "records": 90}
    of = lambda passes, found: {**scores(found), "seconds": passes / 2, "passes": passes, "bytes_up": round(21 * passes)}
    kept = {"curve": [of(0.0, 3.0), of(96.0, loss)], "rounds": 2, "passes": 96.0, "seconds": 48.0, "bytes_up": 2048, "peak_memory_bytes": 2**29}
    site = lambda peak: {"optimizer": "mezo", "planned_peak_bytes": peak}
    kept |= {"directions": 4.0, "mean_square": 6.0}
    return kept | {"adapter_bytes": 3 << 20, "sites": {"site-1": site(2**28), "site-3": site(2**27)}}


def kept_before(loss: float) -> dict:
    """The same of a run that was kept before plans, adapters, records and directions were counted."""
    found = {key: value for key, value in run(loss).items() if key not in ("adapter_bytes", "sites", "directions", "mean_square")}
    found["curve"] = [{key: value for key, value in point.items() if key != "records"} for point in found["curve"]]
    return found


def report(optimizer: str, batch: int, passes: int) -> dict:
    """A simulation of two rounds of two sites, the second scored."""
    score = lambda loss: {"loss": loss, "balanced_accuracy": 0.5, "records": 90}
    site = lambda name, peak: {"worker": name, "batch": batch, "passes": passes, "update_bytes": 100, "peak_memory_bytes": peak}
    slopes = lambda square: {"slopes": {"directions": 30, "mean_square": square}} if optimizer == "mezo" else {}
    sites = [site("a", 5) | slopes(2.0), site("b", 7) | slopes(4.0)]
    rounds = [{"ends_at": 10.0 * number, "workers": sites, "score": found} for number, found in ((1, None), (2, score(1.0)))]
    plan = lambda peak: {"optimizer": optimizer, "batch": batch, "local_steps": 6, "predicted": {"peak_memory_bytes": peak}}
    return {
        "run": {"start": score(3.0), "rounds": rounds, "seconds": 20.0, "real_seconds": 1.0, "adapter": {"sha256": "x", "bytes": 50}},
        "plan": {"workers": {"a": plan(3), "b": plan(4)}},
    }
