"""Medians over rounds, ratios to the better peer, and the table."""

from __future__ import annotations

from statistics import median

from targets import IDLE_MIB_MAX, LOADED_MIB_MAX, START_SECONDS_MAX, TARGETS, Target

OURS = "moat"


def verdicts(result: dict) -> list[dict]:
    """One entry per row that was run: medians of each server, ratios to the better peer, and whether they reach."""
    return [judge(target, rows) for target in TARGETS if (rows := [r for r in result["rows"] if r["row"] == target.row])]


def judge(target: Target, rows: list[dict]) -> dict:
    servers = {name: medians([r for r in rows if r["server"] == name]) for name in dict.fromkeys(r["server"] for r in rows)}
    ours = servers.get(OURS)
    peers = [figures for name, figures in servers.items() if name != OURS and figures]
    out = {"row": target.row, "title": target.title, "reach": target.ratio, "servers": servers, "cpu_ratio": None, "rate_ratio": None}
    if OURS in servers and not ours:
        return {**out, "verdict": "FAILED"}
    if not ours or not peers:
        return {**out, "verdict": "-"}
    # The better peer is the better one of each figure, not one server that is better on the whole.
    out["cpu_ratio"] = min(p["cpu"] for p in peers) / ours["cpu"] if ours["cpu"] else None
    out["rate_ratio"] = ours["rate"] / max(p["rate"] for p in peers)
    missed = []
    if out["cpu_ratio"] is not None and out["cpu_ratio"] < target.ratio:
        missed.append("CPU")
    if out["rate_ratio"] < 1:
        missed.append("rate")
    return {**out, "verdict": f"short: {' and '.join(missed)}" if missed else "ok"}


def medians(rows: list[dict]) -> dict | None:
    """None if any round of the row failed: a server that fails requests has no speed."""
    if not rows or any(r["errors"] or not r["operations"] for r in rows):
        return None
    fields = ("cpu", "rate", "p50_ms", "p99_ms", "loader_cpu")
    return {**{f: median(r[f] for r in rows) for f in fields}, "cpu_unit": rows[0]["cpu_unit"], "rate_unit": rows[0]["rate_unit"]}


def summary(result: dict, judged: list[dict]) -> str:
    """Everything as text: conditions, rows, memory and start."""
    names = list(result["servers"])
    return "\n".join([*about(result), "", *row_lines(judged, names), "", *process_lines(result["servers"]), ""])


def about(result: dict) -> list[str]:
    c = result["conditions"]
    load = " to ".join(f"{c[k][0]:.1f}" for k in ("load_average_before", "load_average_after"))
    lines = [
        f"{c['when']}  {c['machine']}{' (virtual)' if c['virtual'] else ''}",
        f"medians of {c['rounds']} interleaved rounds of {c['seconds']:g} s; loader and servers share the cores; load average {load}",
    ]
    for name, server in result["servers"].items():
        seen = {(e["algorithm"], e["key"]) for e in server["encryption"].values()}
        said = "; ".join(f"{algorithm or 'none'} with {key or 'no key id'}" for algorithm, key in sorted(seen, key=str))
        lines.append(f"{server['version']}: TLS 1.3, encryption that HEAD reports: {said or 'no objects read'}")
    return lines


def row_lines(judged: list[dict], names: list[str]) -> list[str]:
    lines = [["row", "server", "CPU", "", "rate", "", "p50 ms", "p99 ms", "CPU ratio", "rate ratio", "reach", ""]]
    for entry in judged:
        for name in (n for n in names if n in entry["servers"]):
            first = name == names[0]
            lines.append([entry["title"] if first else "", name, *figures(entry["servers"][name]), *(ratios(entry) if first else [""] * 4)])
    return aligned(lines)


def figures(medians_of: dict | None) -> list[str]:
    if medians_of is None:
        return ["failed", "", "", "", "", ""]
    m = medians_of
    return [number(m["cpu"]), m["cpu_unit"], number(m["rate"]), m["rate_unit"], number(m["p50_ms"]), number(m["p99_ms"])]


def ratios(entry: dict) -> list[str]:
    def times(value) -> str:
        return f"{number(value)}x" if value is not None else ""

    return [times(entry["cpu_ratio"]), times(entry["rate_ratio"]), times(entry["reach"]), entry["verdict"]]


def process_lines(servers: dict) -> list[str]:
    lines = [["process", *servers, "reach", ""]]
    for title, field, limit, unit in (
        ("memory idle", "idle_mib", IDLE_MIB_MAX, "MiB"),
        ("memory after the load", "loaded_mib", LOADED_MIB_MAX, "MiB"),
        ("memory at most", "peak_mib", None, "MiB"),
        ("start to first PUT", "start", START_SECONDS_MAX, "s"),
    ):
        values = {name: median(s["starts"]) if field == "start" else s[field] for name, s in servers.items()}
        ours = values.get(OURS)
        verdict = "" if limit is None or ours is None else "ok" if ours <= limit else "short"
        lines.append([title, *(f"{number(v)} {unit}" for v in values.values()), f"{number(limit)} {unit}" if limit else "", verdict])
    return aligned(lines)


def number(value: float) -> str:
    """Three digits that count, without an exponent."""
    if value >= 100:
        return f"{value:,.0f}"
    digits = 1 if value >= 10 else 2 if value >= 1 else 3 if value >= 0.1 else 5
    return f"{value:.{digits}f}"


def aligned(lines: list[list[str]]) -> list[str]:
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    return ["  ".join(cell.ljust(w) if i < 2 or not cell[:1].isdigit() else cell.rjust(w) for i, (cell, w) in enumerate(zip(line, widths))).rstrip() for line in lines]
