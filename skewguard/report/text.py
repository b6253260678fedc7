"""A verdict for a terminal: the sentence in a panel, coverage in a line, a table of findings."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from skewguard.errors import MissingExtra
from skewguard.findings import Kind
from skewguard.report.wording import (
    KINDS,
    count,
    dotted,
    effect,
    evidence,
    further_reasons,
    headline,
    in_order,
    moment,
    plain,
    plural,
    scope,
    sentence,
    share,
    tolerated,
    untold,
    window,
)
from skewguard.verdict import Ruling, Verdict

if TYPE_CHECKING:
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

_MOVED = 5
_LINE = 22
_NAME = 30
_STYLE = {Ruling.PASS: "green", Ruling.FAIL: "red", Ruling.UNKNOWN: "yellow"}


def to_text(verdict: Verdict, *, width: int = 100, colour: bool = False) -> str:
    """The verdict as text of `width` columns, with ANSI colours if `colour`."""
    shown = renderable(verdict)
    from rich.console import Console

    console = Console(
        file=io.StringIO(), width=width, force_terminal=colour, color_system="standard" if colour else None,
        legacy_windows=False, highlight=False,
    )  # fmt: skip
    with console.capture() as captured:
        console.print(shown)
    return "\n".join(line.rstrip() for line in captured.get().splitlines()) + "\n"


def renderable(verdict: Verdict) -> Group:
    """The verdict for a `rich.console.Console` of one's own."""
    try:
        from rich.console import Group
        from rich.panel import Panel
        from rich.text import Text
    except ModuleNotFoundError as error:
        raise MissingExtra("the report on a terminal", "guard") from error
    style = _STYLE[verdict.ruling]
    parts: list[Panel | Table | Text] = [
        Panel(Text(headline(verdict)), title=Text(verdict.ruling, style=f"bold {style}"), border_style=style),
        _facts(verdict),
    ]
    if verdict.findings:
        parts += [_title(plural(len(verdict.findings), "finding")), _findings(verdict)]
    for title, lines in (
        ("Also", further_reasons(verdict)),
        ("Waived", [sentence(finding) for finding in verdict.waived]),
        ("Drift (no reason for the ruling)", _drift(verdict)),
        ("What this check cannot see", [plain(line) for line in verdict.coverage.blind]),
    ):
        if lines:
            parts += [_title(title), _list(lines)]
    return Group(*parts)


def _drift(verdict: Verdict) -> list[str]:
    """The advice, the model's performance, and what moved furthest."""
    moved = [
        f"{dotted(one.feature)}: at least {one.at_least:.3f}; {plain(one.message)}" for one in verdict.quiet[:_MOVED]
    ]
    more = [f"and {plural(len(verdict.quiet) - _MOVED, 'input')} more"] if len(verdict.quiet) > _MOVED else []
    return [line for line in (plain(verdict.advice), *map(plain, verdict.notes), *moved, *more) if line]


def _title(title: str) -> Text:
    from rich.text import Text

    return Text(f"\n{title}", style="bold")


def _list(lines: list[str]) -> Table:
    from rich.table import Table

    table = Table.grid(padding=(0, 1))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for line in lines:
        table.add_row(" -", _text(line))
    return table


def _facts(verdict: Verdict) -> Table:
    from rich.table import Table

    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    seen, subject = verdict.coverage, verdict.subject
    rows = {
        "coverage": (
            f"{seen.rows:,} rows replayed: {seen.equal:,} equal, {seen.lagged:,} lagged, "
            f"{seen.mismatched:,} mismatched, {seen.unverifiable:,} unverifiable; {seen.values:,} values compared, "
            f"{seen.cross_checked:,} rows cross-checked"
        ),
        "features": scope(verdict),
        "impact": effect(verdict.impact),
        "truth": plain(seen.truth),
        "window": window(verdict),
        "evidence": evidence(subject),
        "service": plain(subject.service),
        "builds": ", ".join(plain(build) for build in subject.builds),
        "snapshot": plain(subject.snapshot_id),
        "model": plain(subject.model_id),
        "valid until": f"{moment(verdict.expires_at)} (issued {moment(verdict.issued_at)})",
        "policy": plain(verdict.policy_digest),
    }
    for name, value in rows.items():
        if value:
            table.add_row(name, _text(value))
    return table


def _findings(verdict: Verdict) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, expand=True, pad_edge=False, leading=1)
    names = [_named(finding.feature) for finding in verdict.findings]
    longest = max((len(line) for name in names for line in name.splitlines()), default=0)
    table.add_column("feature", overflow="fold", min_width=min(longest, _NAME))
    table.add_column("kind", no_wrap=True)
    table.add_column("rows", justify="right", no_wrap=True)
    table.add_column("cause", overflow="fold", ratio=1)
    for finding in in_order(verdict):
        cause = plain(finding.cause) or untold(finding) or KINDS[finding.kind]
        told = _text(", ".join([cause, *(plain(one) for one in finding.slices)]))
        if finding.impact:
            told.append(f"\n{effect(finding.impact)}")
        if tolerated(verdict, finding):
            told.append("\nwithin the policy's limit", style="dim")
        if finding.cause and finding.examples and finding.kind is not Kind.EXPECTATION:
            one = finding.examples[0]
            told.append(
                f"\nserved {plain(one.served)}, truth {plain(one.truth)} - skewguard explain {plain(one.request_id)}",
                "dim",
            )
        rows = f"{count(finding.rows, finding.of)}\n{share(finding.rows, finding.of)}"
        table.add_row(_text(_named(finding.feature)), finding.kind.value, rows, told)
    return table


def _named(feature: str) -> str:
    """`view.feature`, on two lines where it is long: a name that is cut in two is hard to find again."""
    name = dotted(feature)
    return name.replace(".", ".\n", 1) if len(name) > _LINE else name


def _text(value: str) -> Text:
    """Text that is not markup, whatever brackets it holds."""
    from rich.text import Text

    return Text(value)
