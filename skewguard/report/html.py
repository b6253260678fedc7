"""A verdict as one HTML file: nothing in it loads anything, and every value in it is escaped."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from html import escape
from importlib.resources import files

from skewguard.findings import Example, Finding, Kind
from skewguard.report.picture import coverage_bar, hours
from skewguard.report.wording import (
    KINDS,
    TAPS,
    count,
    dotted,
    evidence,
    further_reasons,
    headline,
    in_order,
    moment,
    plain,
    plural,
    sentence,
    share,
    tolerated,
    untold,
    window,
)
from skewguard.verdict import Ruling, Verdict

_SIGNS = {
    Ruling.PASS: '<path d="M3.5 8.5l3 3 6-7"/>',
    Ruling.FAIL: '<path d="M4 4l8 8M12 4l-8 8"/>',
    Ruling.UNKNOWN: '<path d="M4.8 5.6a3.2 3.2 0 1 1 4.6 2.9c-.9.5-1.4 1-1.4 1.9M8 13.4v.1"/>',
}
_HOW_MANY_HOURS = 48
_WHOLE = re.compile(r"\d{4}-\d\d-\d\d(?:[T ][\d:.]+(?:Z| UTC|[+-]\d\d:\d\d)?)?|\d[\d,]* of \d[\d,]*")
"""What reads badly when a line breaks inside it: an instant, `412 of 9,800`."""


def to_html(verdict: Verdict, *, title: str = "") -> str:
    """The verdict as a page that can be mailed, archived and printed. `title` is the document's."""
    name = plain(verdict.subject.registered_name) or "model"
    style = files("skewguard.report").joinpath("style.css").read_text(encoding="utf-8")
    body = "\n".join(
        [
            _top(verdict),
            "<main>",
            _coverage(verdict),
            _findings(verdict),
            _waived(verdict),
            _blind(verdict),
            _provenance(verdict),
            "</main>",
        ]
    )
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; img-src data:">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta name="referrer" content="no-referrer">
<link rel="icon" href="data:,">
<title>{_e(title or f"{verdict.ruling}: {name}")}</title>
<style>
{style}</style>
</head>
<body class="{verdict.ruling.lower()}">
{body}
</body>
</html>
"""


def _e(text: str) -> str:
    """Text that is safe between tags and in attributes."""
    return escape(plain(text), quote=True)


def _prose(text: str) -> str:
    """The same, with instants and counts kept on one line."""
    return _WHOLE.sub(lambda match: f"<span>{match[0]}</span>", _e(text))


def _code(text: str) -> str:
    return f"<code>{_e(text)}</code>"


def _top(verdict: Verdict) -> str:
    sign = f'<svg viewBox="0 0 16 16" aria-hidden="true">{_SIGNS[verdict.ruling]}</svg>'
    subject = verdict.subject
    facts = [
        ("Evidence", _prose(evidence(subject))),
        ("Requests", _prose(window(verdict))),
        ("Service", _e(subject.service)),
        ("Builds", ", ".join(_code(build) for build in subject.builds)),
        ("Snapshot", _code(subject.snapshot_id) if subject.snapshot_id else ""),
        ("Logged model", _code(subject.model_id) if subject.model_id else ""),
        (
            "Valid until",
            f"{_prose(moment(verdict.expires_at))} <small>issued {_prose(moment(verdict.issued_at))}</small>",
        ),
    ]
    others = further_reasons(verdict)
    also = f'<ul class="reasons">{_items(_prose(reason) for reason in others)}</ul>' if others else ""
    return f"""<header class="top">
<p class="eyebrow">skewguard <span>verdict on training-serving skew</span></p>
<p class="badge">{sign}<strong>{verdict.ruling}</strong></p>
<h1>{_prose(headline(verdict))}</h1>
{also}
<dl class="facts">{_facts(facts)}</dl>
</header>"""


def _facts(facts: Iterable[tuple[str, str]]) -> str:
    return "".join(f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in facts if value)


def _items(items: Iterable[str]) -> str:
    return "".join(f"<li>{item}</li>" for item in items)


def _coverage(verdict: Verdict) -> str:
    seen = verdict.coverage
    parts = (
        ("equal", "Equal", seen.equal, "served is the truth"),
        ("lagged", "Lagged", seen.lagged, "an older row, within max_lag"),
        ("mismatched", "Mismatched", seen.mismatched, "training would not have seen this"),
        ("unverifiable", "Unverifiable", seen.unverifiable, "the sources cannot tell"),
    )
    legend = "".join(
        f'<div class="{key}"><dt><i aria-hidden="true"></i>{name}</dt>'
        f"<dd><b>{number:,}</b> <span>{share(number, seen.rows)}</span><small>{meaning}</small></dd></div>"
        for key, name, number, meaning in parts
    )
    checked = [f"{seen.values:,} values compared"]
    if seen.cross_checked:
        checked.append(f"{plural(seen.cross_checked, 'row')} recomputed by the independent oracle")
    bar = coverage_bar([(key, number) for key, _, number, _ in parts], seen.rows)
    return f"""<section class="coverage" aria-labelledby="coverage">
<h2 id="coverage">{plural(seen.rows, "request")} replayed</h2>
{bar}
<dl class="legend">{legend}</dl>
<p class="note">{", ".join(checked)}.</p>
</section>"""


def _findings(verdict: Verdict) -> str:
    findings = in_order(verdict)
    if not findings:
        return ""
    rows = "".join(_index_row(verdict, number, finding) for number, finding in enumerate(findings, 1))
    head = _head("Feature", "Kind", "Rows#", "Share#", "Cause")
    index = _table("All findings", head, rows, "index") if len(findings) > 1 else ""
    cards = "\n".join(_card(verdict, number, finding) for number, finding in enumerate(findings, 1))
    return f"""<section aria-labelledby="findings">
<h2 id="findings">{plural(len(findings), "finding")}</h2>
{index}
<div class="cards">
{cards}
</div>
</section>"""


def _index_row(verdict: Verdict, number: int, finding: Finding) -> str:
    cells = (
        f'<a href="#finding-{number}">{_e(dotted(finding.feature))}</a>',
        _kind(finding) + _limit(verdict, finding),
        count(finding.rows, finding.of),
        share(finding.rows, finding.of),
        f"<div>{_prose(finding.cause or untold(finding) or KINDS[finding.kind])}</div>",
    )
    first, *others = cells
    shown = "".join(
        f'<td role="cell"{classes}>{cell}</td>'
        for cell, classes in zip(others, ("", ' class="number"', ' class="number"', ""), strict=True)
    )
    return f'<tr role="row"><th scope="row" role="rowheader">{first}</th>{shown}</tr>'


def _head(*names: str) -> str:
    """Column headers; a name that ends with # heads a column of numbers."""
    return "".join(
        f'<th scope="col" role="columnheader"{" class=number" if name.endswith("#") else ""}>{name.rstrip("#")}</th>'
        for name in names
    )


def _table(label: str, head: str, rows: str, kind: str) -> str:
    """A table that scrolls inside its own box, by keyboard too, where it is wider than the page.

    The roles say what the elements are already, because on a narrow screen the index is laid out as a list.
    """
    return (
        f'<div class="scroll {kind}" role="region" aria-label="{_e(label)}" tabindex="0"><table role="table">'
        f'<thead role="rowgroup"><tr role="row">{head}</tr></thead><tbody role="rowgroup">{rows}</tbody></table></div>'
    )


def _kind(finding: Finding) -> str:
    return f'<span class="kind {finding.kind.value}">{finding.kind.value}</span>'


def _limit(verdict: Verdict, finding: Finding) -> str:
    return ' <span class="kind">within limit</span>' if tolerated(verdict, finding) else ""


def _card(verdict: Verdict, number: int, finding: Finding) -> str:
    told = untold(finding)
    cause = f'<p class="cause">{_prose(finding.cause)}</p>' if finding.cause else ""
    explained = (
        f"explains {share(round(finding.explained * 10_000), 10_000)} of these rows" if finding.explained else ""
    )
    chips = [_prose(slice_) for slice_ in finding.slices]
    kind = f"cause: {_e(finding.cause_kind)}" if finding.cause_kind else ""
    notes = [note for note in (kind, explained, TAPS[finding.tap]) if note]
    return f"""<article class="card" id="finding-{number}" aria-labelledby="finding-{number}-name">
<header>
<h3 id="finding-{number}-name">{_e(dotted(finding.feature))}</h3>
<p>{_kind(finding)}{_limit(verdict, finding)}</p>
<p class="rows"><b>{count(finding.rows, finding.of)}</b> rows <span>{share(finding.rows, finding.of)}</span></p>
</header>
<div class="body">
<div class="words">
{cause}
{f'<ul class="slices">{_items(chips)}</ul>' if chips else ""}
<p class="message">{_prose(told or KINDS[finding.kind])}</p>
{f'<p class="note">{"; ".join(notes)}</p>' if notes else ""}
</div>
{_picture(finding)}
</div>
{_examples(finding)}
</article>"""


def _picture(finding: Finding) -> str:
    if not finding.by_hour:
        return ""
    differ = [hour for hour in finding.by_hour if hour[2]]
    rows = "".join(
        f'<tr><th scope="row">{_e(moment(at))}</th><td class="number">{some:,}</td><td class="number">{of:,}</td>'
        f'<td class="number">{share(some, of)}</td></tr>'
        for at, of, some in differ[:_HOW_MANY_HOURS]
    )
    head = _head("Hour", "Differ#", "Compared#", "Share#")
    rest = len(differ) - _HOW_MANY_HOURS
    more = f'<p class="note">and {plural(rest, "hour")} more</p>' if rest > 0 else ""
    table = _table(f"Hours in which {dotted(finding.feature)} differs", head, rows, "hours") + more
    summary = f"{plural(len(differ), 'hour')} of {len(finding.by_hour):,} with rows that differ"
    details = f"<details><summary>{summary}</summary>{table}</details>" if differ else f'<p class="note">{summary}</p>'
    return f"<figure>{hours(finding.by_hour, dotted(finding.feature))}{details}</figure>"


def _examples(finding: Finding) -> str:
    if not finding.examples:
        return ""
    asked = finding.kind is not Kind.EXPECTATION  # a row of a file, rather than an answered request
    columns = _columns(finding.examples, asked)
    head = _head(*(name for name, _ in columns))
    rows = "".join(
        "<tr>" + "".join(values[row] for _, values in columns) + "</tr>" for row in range(len(finding.examples))
    )
    table = _table(f"Examples of {dotted(finding.feature)}", head, rows, "examples")
    first = next((example.request_id for example in finding.examples if example.request_id), "")
    command = ""
    if asked and first:
        told = "<span>Its source rows, and how to reproduce the truth:</span>"
        command = f'<p class="command">{told} {_code(f"skewguard explain {first}")}</p>'
    return f"<h4>Examples: {count(len(finding.examples), finding.rows)} rows</h4>\n{table}\n{command}"


def _columns(examples: Sequence[Example], asked: bool) -> list[tuple[str, list[str]]]:
    """Header and cells of each column that has something to say."""

    def column(name: str, values: Iterator[str], kind: str = "") -> tuple[str, list[str]]:
        shown = f' class="{kind}"' if kind else ""
        return name, [f"<td{shown}>{value}</td>" for value in values]

    columns = [column("Served" if asked else "Found", (_code(one.served) for one in examples), "served")]
    truths = (_code(one.truth) if asked else _e(one.truth.removeprefix("expected ")) for one in examples)
    columns.append(column("Truth" if asked else "Expected", truths, "truth"))
    if any(example.request_id for example in examples):
        columns.append(column("Request" if asked else "Id", (_code(one.request_id) for one in examples)))
    if any(example.as_of for example in examples):
        columns.append(column("As of", (_e(moment(one.as_of)) for one in examples), "when"))
    columns.append(column("Keys", (_code(one.keys) for one in examples)))
    return columns


def _waived(verdict: Verdict) -> str:
    if not verdict.waived:
        return ""
    items = _items(f"{_kind(finding)} {_prose(sentence(finding))}" for finding in verdict.waived)
    return f"""<section aria-labelledby="waived">
<h2 id="waived">{plural(len(verdict.waived), "finding")} waived by the policy</h2>
<ul class="waived">{items}</ul>
</section>"""


def _blind(verdict: Verdict) -> str:
    if not verdict.coverage.blind:
        return ""
    return f"""<section aria-labelledby="blind">
<h2 id="blind">What this check cannot see</h2>
<ul class="blind">{_items(_prose(line) for line in verdict.coverage.blind)}</ul>
</section>"""


def _provenance(verdict: Verdict) -> str:
    subject = verdict.subject
    digests = [
        ("Verdict", verdict.digest),
        ("Policy", verdict.policy_digest),
        ("Model", subject.model_digest),
        ("Bundle of definitions", subject.bundle_digest),
    ]
    rows = _facts((name, _code(digest) if digest else "none recorded") for name, digest in digests)
    return f"""<section class="provenance" aria-labelledby="provenance">
<h2 id="provenance">What this verdict is bound to</h2>
<dl class="facts">{rows}</dl>
</section>"""
