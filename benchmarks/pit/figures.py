"""What a race comes to: the figures of the last line, tables for the terminal and for docs/benchmarks.md."""

from __future__ import annotations

import os
import platform
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil
from rich.box import SIMPLE_HEAD
from rich.table import Table

from benchmarks.pit.cases import Case
from benchmarks.pit.race import LABELS, Standing

PACKAGES = ("duckdb", "polars", "numpy", "pyarrow", "feast", "dask")


def of_case(case: Case, standings: dict[str, Standing]) -> dict[str, Any]:
    """The figures of one case: per contestant `_s`, `_cpu_s`, `_mib` (medians; null where it was ended) and `rounds`.

    `best` is the fastest of the others whose answer is right. `disagreements` counts lost and displaced asks and other
    cells of everybody but Feast's dask store, which has figures of its own.
    """
    found: dict[str, Any] = {"title": case.title, "feast_duckdb_s": None}
    for name, standing in standings.items():
        for figure, digits in (("s", 3), ("cpu_s", 3), ("mib", 0), ("order_s", 3)):
            if figure != "order_s" or any(figure in run for run in standing.runs):
                found[f"{name}_{figure}"] = _round(standing.median(figure), digits)
    right = {
        name: s for name in standings if name != "ours" and _is_right(standings[name]) and (s := found[f"{name}_s"])
    }
    best = min(right, key=lambda name: right[name])
    found |= {"best": best, "best_s": right[best]}
    if "ours" in standings:
        found["ratio_best"] = _ratio(found["ours_s"], found["best_s"])
        found["ratio_best_cpu"] = _ratio(found["ours_cpu_s"], found[f"{best}_cpu_s"])
        found["ratio_feast"] = _ratio(found.get("feast_duckdb_s"), found["ours_s"])
    compared = {name: one.agreement for name, one in standings.items() if one.agreement is not None}
    dask = compared.pop("feast_dask", None)
    if dask is not None:
        found |= {"feast_dask_lost_asks": dask.lost, "feast_dask_wrong_cells": dask.cells + dask.displaced}
    found["disagreements"] = sum(agreement.total for agreement in compared.values())
    found["disagreements_by"] = {name: agreement.total for name, agreement in compared.items() if agreement.total}
    found["ended"] = {name: standing.ended for name, standing in standings.items() if standing.ended}
    found["rounds"] = {name: len(standing.runs) for name, standing in standings.items()}
    return found


def of_all(cases: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """The last line."""
    best = [case["ratio_best"] for case in cases.values() if case.get("ratio_best") is not None]
    feast = [case["ratio_feast"] for case in cases.values() if case.get("ratio_feast") is not None]
    return {
        "cases": cases,
        "max_ratio_best": max(best, default=None),
        "min_ratio_feast": min(feast, default=None),
        "disagreements": sum(case["disagreements"] for case in cases.values()),
        "machine": machine(),
    }


def machine() -> dict[str, Any]:
    """What it ran on, and how busy that was."""
    cpu = platform.processor() or platform.machine()
    described = Path("/proc/cpuinfo")
    if described.exists():
        names = [line.partition(":")[2].strip() for line in described.read_text().splitlines() if "model name" in line]
        cpu = next(iter(names), cpu)
    return {
        "cpu": cpu,
        "cores": os.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "system": platform.platform(terse=True),
        "python": platform.python_version(),
        "versions": {name: version(name) for name in PACKAGES},
        "load": [round(load, 1) for load in psutil.getloadavg()],
        "at": datetime.now(UTC).isoformat(timespec="minutes"),
    }


def table(case: Case, standings: dict[str, Standing], title: str) -> Table:
    """The standings for the terminal."""
    shown = Table(title=f"{case.title}: {title}", title_justify="left", box=SIMPLE_HEAD)
    shown.add_column("contestant", no_wrap=True)
    for column in ("wall s", "from-to", "x best", "CPU s", "MiB", "rounds", "differs"):
        shown.add_column(column, justify="right")
    walls = {name: wall for name, standing in standings.items() if (wall := standing.median("s"))}
    others = [wall for name, wall in walls.items() if name != "ours" and _is_right(standings[name])]
    for name, standing in standings.items():
        style = "bold" if name == "ours" else ""
        if name not in walls:
            shown.add_row(LABELS[name], standing.ended or "-", style=style)
            continue
        seconds = [run["s"] for run in standing.runs]
        shown.add_row(
            LABELS[name],
            f"{walls[name]:.2f}",
            f"{min(seconds):.2f}-{max(seconds):.2f}",
            f"{walls[name] / min(others):.2f}" if others else "",
            f"{standing.median('cpu_s'):.2f}",
            f"{standing.median('mib'):.0f}",
            str(len(standing.runs)),
            _difference(standing),
            style=style,
        )
    return shown


def markdown(figures: dict[str, Any]) -> str:
    """The tables of docs/benchmarks.md: seconds, CPU seconds and memory, each with the cases as rows."""
    cases = figures["cases"]
    names = [name for name in LABELS if any(f"{name}_s" in case for case in cases.values())]
    heads = [LABELS[name] for name in names]
    lines = _header("wall seconds", *heads, "ours / best", "Feast / ours")
    for case in cases.values():
        cells = [_cell(case, name, "s", "{:.2f}") for name in names]
        lines.append(_line(case["title"], *cells, _times(case.get("ratio_best")), _times(case.get("ratio_feast"))))
    for caption, figure, form in (("CPU seconds", "cpu_s", "{:.2f}"), ("peak MiB", "mib", "{:.0f}")):
        lines += ["", *_header(caption, *heads)]
        lines += [_line(case["title"], *(_cell(case, name, figure, form) for name in names)) for case in cases.values()]
    lost = [
        f"{case['title']}: {case['feast_dask_lost_asks']:,} asks lost, {case['feast_dask_wrong_cells']:,} wrong cells"
        for case in cases.values()
        if "feast_dask_lost_asks" in case
    ]
    if lost:
        lines += ["", f"Feast's dask store, not counted below: {'; '.join(lost)}."]
    here, rounds = figures["machine"], max(n for case in cases.values() for n in case["rounds"].values())
    versions = ", ".join(f"{name} {number}" for name, number in here["versions"].items())
    on = f"{here['cores']} cores of {here['cpu']}, {here['memory_gib']} GiB, {here['system']}, Python {here['python']}"
    lines += [
        "",
        f"Medians of {rounds} rounds. Places, asks or cells that differ: {figures['disagreements']:,}.",
        f"{on}; {versions}. Load at the end: {here['load'][0]}. {here['at'].partition('T')[0]}.",
    ]
    return "\n".join(lines)


def _is_right(standing: Standing) -> bool:
    return standing.agreement is not None and standing.agreement.total == 0


def _difference(standing: Standing) -> str:
    found = standing.agreement
    if found is None or not found.total:
        return "" if found is None else "0"
    lost = f"{found.lost:,} asks lost, " if found.lost else ""
    return lost + f"{found.cells + found.displaced:,}"


def _round(value: float | None, digits: int) -> float | None:
    return None if value is None else round(value, digits) if digits else round(value)


def _ratio(one: float | None, other: float | None) -> float | None:
    return None if one is None or other is None else round(one / other, 3)


def _header(*heads: str) -> list[str]:
    return [_line(*heads), _line("---", *["---:"] * (len(heads) - 1))]


def _line(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def _times(ratio: float | None) -> str:
    return "-" if ratio is None else f"{ratio:.2f}x"


def _cell(case: dict[str, Any], name: str, figure: str, form: str) -> str:
    value = case.get(f"{name}_{figure}")
    if value is None:
        return str(case["ended"].get(name, "-"))
    text = form.format(value)
    return f"**{text}**" if figure == "s" and name == case["best"] else text
