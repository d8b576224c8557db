"""The results of the comparison as a page of Markdown."""


def page(results: dict, order: list[str]) -> str:
    """All rows that were measured, in order."""
    machine, peer = results["machine"], results["peer"]
    lines = [
        "# The engine beside PyTorch + PEFT",
        "",
        f"Written by `./run bench`. {machine['cpu']}, {machine['cores']} cores, {machine.get('memory_gib', '?')} GiB; "
        f"{', '.join(machine['instructions'])}. {machine['threads']} threads on both sides.",
        f"PyTorch {peer['torch']}, transformers {peer['transformers']}, PEFT {peer['peft']}. SmolLM2-135M-Instruct, "
        "LoRA of rank 16 on every linear layer, 4 rows of 256 tokens.",
        "Speed and memory are ours over PyTorch's, the median over pairs that ran in turn (in brackets the lowest and the highest).",
        "",
        "| mode | ours | PyTorch | speed | memory | roofline | wanted |",
        "|---|---|---|---|---|---|---|",
    ]
    rows = results["rows"]
    lines += [line(rows[name]) for name in order if name in rows]
    gate = results.get("curves")
    if gate:
        lines += ["", *curves(gate)]
    return "\n".join(lines) + "\n"


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


def curves(gate: dict) -> list[str]:
    """How far each mode's loss is from float32's."""
    lines = [
        f"Loss over {gate['steps']} steps on {gate['records']} (batch {gate['batch']}, sequence {gate['sequence']}, rate {gate['rate']:g}), "
        "relative difference at most:",
        "",
        "| mode | first 10 steps | all | against |",
        "|---|---|---|---|",
    ]
    for mode in gate["modes"]:
        lines.append(f"| {mode['title']} | {mode['first']:.1e} | {mode['all']:.1e} | {mode['against']} |")
    return lines
