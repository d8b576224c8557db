"""The results of the comparison as a page of Markdown."""


def page(results: dict, order: list[str]) -> str:
    """All rows that were measured, in order."""
    rows = {name: results["rows"][name] for name in order if name in results["rows"]}
    gate = results.get("curves")
    on = origins(results, rows | ({"curves": gate} if gate else {}))
    letters = {text: chr(ord("A") + number) for number, text in enumerate(dict.fromkeys(on.values()))}
    same = len(letters) < 2
    lines = [
        "# The engine beside PyTorch + PEFT",
        "",
        f"Written by `./run bench`. {next(iter(letters), 'Nothing was measured') if same else 'Each row says on what it was measured; the list is below'}.",
        "SmolLM2-135M-Instruct, LoRA of rank 16 on every linear layer, 4 rows of 256 tokens.",
        "Speed and memory are ours over PyTorch's, the median over pairs that ran in turn (in brackets the lowest and the highest).",
        "",
        "| mode | ours | PyTorch | speed | memory | roofline | wanted |" + ("" if same else " on |"),
        "|---|---|---|---|---|---|---|" + ("" if same else "---|"),
    ]
    lines += [line(row) + ("" if same else f" {letters[on[name]]} |") for name, row in rows.items()]
    if not same:
        lines += ["", *(f"- {letter}: {text}." for text, letter in letters.items())]
    if gate:
        lines += ["", *curves(gate, "" if same else f", on {letters[on['curves']]}")]
    return "\n".join(lines) + "\n"


def origins(results: dict, measured: dict[str, dict]) -> dict[str, str]:
    """What each row, and the curves, were measured on. Of an older file it is no more than the machine of its last run."""
    found = {}
    for name, one in measured.items():
        on = one.get("on") or {"machine": results["machine"], "peer": results.get("peer")}
        machine, peer = on["machine"], on.get("peer")
        text = (
            f"{machine['cpu']}, {machine['cores']} cores, {machine.get('memory_gib', '?')} GiB; {', '.join(machine['instructions'])}; "
            f"{machine['threads']} threads on both sides; binary {on.get('binary', 'not recorded')}"
        )
        found[name] = text + (f"; PyTorch {peer['torch']}, transformers {peer['transformers']}, PEFT {peer['peft']}" if peer else "")
    return found


def line(row: dict) -> str:
    """One row of the table."""
    ours = row["ours"]
    peer = row.get("torch") or row.get("against")
    label = row["torch_mode"] or row["against_mode"]
    cells = [
        row["title"],
        speed_and_memory(ours),
        f"{speed_and_memory(peer)} ({label})" if peer else "–",
        ratio(row, "tokens_per_second"),
        ratio(row, "peak_mib"),
        f"{ours['fraction_of_roofline']:.2f} of {ours['roofline_gflops']:.0f} Gflop/s",
        "; ".join(wanted(row, limit) for limit in row["limits"]),
    ]
    return "| " + " | ".join(cells) + " |"


def speed_and_memory(figures: dict) -> str:
    """Both of one side."""
    return f"{figures['tokens_per_second']:.0f} tokens/s, {figures['peak_mib']:.0f} MiB"


def ratio(row: dict, key: str) -> str:
    """Median, lowest and highest ratio of the pairs."""
    side = "torch" if row["torch_mode"] else "against"
    values = sorted(pair["ours"][key] / pair[side][key] for pair in row["pairs"] if side in pair)
    if not values:
        return "–"
    middle = values[len(values) // 2] if len(values) % 2 else (values[len(values) // 2 - 1] + values[len(values) // 2]) / 2
    return f"{middle:.2f} ({values[0]:.2f}–{values[-1]:.2f})"


def wanted(row: dict, limit: dict) -> str:
    """A limit, what it is about, and whether it is met."""
    names = {
        "speed": "speed",
        "memory": "memory",
        "peak_mib": "MiB",
        "speed_against": f"speed against {row['against_mode']}",
        "memory_against": f"memory against {row['against_mode']}",
    }
    sign = {">=": "≥", "<=": "≤"}[limit["relation"]]
    verdict = "met" if limit["met"] else f"missed: {row[limit['figure']]:.3f}"
    if limit["figure"].endswith("_against") and limit["met"]:
        verdict = f"met: {row[limit['figure']]:.2f}"
    return f"{names[limit['figure']]} {sign} {limit['value']:g}: {verdict}"


def curves(gate: dict, on: str = "") -> list[str]:
    """How far each mode's loss is from float32's; and on what they were measured, where that is not said above."""
    lines = [
        f"Loss over {gate['steps']} steps on {gate['records']} (batch {gate['batch']}, sequence {gate['sequence']}, rate {gate['rate']:g}), "
        f"relative difference at most{on}:",
        "",
        "| mode | first 10 steps | all | against |",
        "|---|---|---|---|",
    ]
    for mode in gate["modes"]:
        lines.append(f"| {mode['title']} | {mode['first']:.1e} | {mode['all']:.1e} | {mode['against']} |")
    return lines
