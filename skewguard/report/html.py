"""A verdict as one HTML file: nothing in it loads anything, and every value in it is escaped."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from skewguard.findings import Example, Finding, Kind
from skewguard.report import page
from skewguard.report.picture import coverage_bar, hours, scatter
from skewguard.report.wording import (
    KINDS,
    TAPS,
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
from skewguard.verdict import Verdict

_HOW_MANY_HOURS = 48
_SKEWED = " <span class=kind>a finding is about it</span>"


def to_html(verdict: Verdict, *, title: str = "") -> str:
    """The verdict as a page that can be mailed, archived and printed. `title` is the document's."""
    name = plain(verdict.subject.registered_name) or "model"
    body = "\n".join(
        [
            _top(verdict),
            "<main>",
            _coverage(verdict),
            _findings(verdict),
            _waived(verdict),
            _quiet(verdict),
            _blind(verdict),
            _provenance(verdict),
            "</main>",
        ]
    )
    return page.document(title or f"{verdict.ruling}: {name}", verdict.ruling.lower(), body)


def _top(verdict: Verdict) -> str:
    subject = verdict.subject
    facts = [
        ("Evidence", page.prose(evidence(subject))),
        ("Features", page.prose(scope(verdict))),
        ("Requests", page.prose(window(verdict))),
        ("Service", page.safe(subject.service)),
        ("Builds", ", ".join(page.code(build) for build in subject.builds)),
        ("Snapshot", page.code(subject.snapshot_id) if subject.snapshot_id else ""),
        ("Logged model", page.code(subject.model_id) if subject.model_id else ""),
        (
            "Valid until",
            f"{page.prose(moment(verdict.expires_at))} <small>issued {page.prose(moment(verdict.issued_at))}</small>",
        ),
    ]
    others = further_reasons(verdict)
    also = f'<ul class="reasons">{page.items(page.prose(reason) for reason in others)}</ul>' if others else ""
    return f"""<header class="top">
<p class="eyebrow">skewguard <span>verdict on training-serving skew</span></p>
{page.badge(verdict.ruling)}
<h1>{page.prose(headline(verdict))}</h1>
{also}
<dl class="facts">{page.facts(facts)}</dl>
</header>"""


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
    if verdict.impact:
        checked.append(effect(verdict.impact))
    if seen.truth:
        checked.append(f"held against {page.safe(seen.truth)}")
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
    head = page.head("Feature", "Kind", "Rows#", "Share#", "Cause")
    index = page.table("All findings", head, rows, "index") if len(findings) > 1 else ""
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
        f'<a href="#finding-{number}">{page.safe(dotted(finding.feature))}</a>',
        _kind(finding) + _limit(verdict, finding),
        count(finding.rows, finding.of),
        share(finding.rows, finding.of),
        f"<div>{page.prose(finding.cause or untold(finding) or KINDS[finding.kind])}</div>",
    )
    first, *others = cells
    shown = "".join(
        f'<td role="cell"{classes}>{cell}</td>'
        for cell, classes in zip(others, ("", ' class="number"', ' class="number"', ""), strict=True)
    )
    return f'<tr role="row"><th scope="row" role="rowheader">{first}</th>{shown}</tr>'


def _kind(finding: Finding) -> str:
    return f'<span class="kind {finding.kind.value}">{finding.kind.value}</span>'


def _limit(verdict: Verdict, finding: Finding) -> str:
    return ' <span class="kind">within limit</span>' if tolerated(verdict, finding) else ""


def _card(verdict: Verdict, number: int, finding: Finding) -> str:
    told = untold(finding)
    cause = f'<p class="cause">{page.prose(finding.cause)}</p>' if finding.cause else ""
    explained = (
        f"explains {share(round(finding.explained * 10_000), 10_000)} of these rows" if finding.explained else ""
    )
    chips = [page.prose(slice_) for slice_ in finding.slices]
    kind = f"cause: {page.safe(finding.cause_kind)}" if finding.cause_kind else ""
    notes = [note for note in (kind, explained, TAPS[finding.tap], effect(finding.impact)) if note]
    return f"""<article class="card" id="finding-{number}" aria-labelledby="finding-{number}-name">
<header>
<h3 id="finding-{number}-name">{page.safe(dotted(finding.feature))}</h3>
<p>{_kind(finding)}{_limit(verdict, finding)}</p>
<p class="rows"><b>{count(finding.rows, finding.of)}</b> rows <span>{share(finding.rows, finding.of)}</span></p>
</header>
<div class="body">
<div class="words">
{cause}
{f'<ul class="slices">{page.items(chips)}</ul>' if chips else ""}
<p class="message">{page.prose(told or KINDS[finding.kind])}</p>
{f'<p class="note">{"; ".join(notes)}</p>' if notes else ""}
</div>
{_pictures(finding)}
</div>
{_examples(finding)}
</article>"""


def _pictures(finding: Finding) -> str:
    """Where it stands against the truth, and when."""
    against = f"<figure>{scatter(finding.points, dotted(finding.feature))}</figure>" if len(finding.points) > 2 else ""
    return f'<div class="pictures">{against}{_picture(finding)}</div>' if against or finding.by_hour else ""


def _picture(finding: Finding) -> str:
    if not finding.by_hour:
        return ""
    differ = [hour for hour in finding.by_hour if hour[2]]
    rows = "".join(
        f'<tr><th scope="row">{page.safe(moment(at))}</th><td class="number">{some:,}</td>'
        f'<td class="number">{of:,}</td><td class="number">{share(some, of)}</td></tr>'
        for at, of, some in differ[:_HOW_MANY_HOURS]
    )
    head = page.head("Hour", "Differ#", "Compared#", "Share#")
    rest = len(differ) - _HOW_MANY_HOURS
    more = f'<p class="note">and {plural(rest, "hour")} more</p>' if rest > 0 else ""
    table = page.table(f"Hours in which {dotted(finding.feature)} differs", head, rows, "hours") + more
    summary = f"{plural(len(differ), 'hour')} of {len(finding.by_hour):,} with rows that differ"
    details = f"<details><summary>{summary}</summary>{table}</details>" if differ else f'<p class="note">{summary}</p>'
    return f"<figure>{hours(finding.by_hour, dotted(finding.feature))}{details}</figure>"


def _examples(finding: Finding) -> str:
    if not finding.examples:
        return ""
    asked = finding.kind is not Kind.EXPECTATION  # a row of a file, rather than an answered request
    columns = _columns(finding.examples, asked)
    head = page.head(*(name for name, _ in columns))
    rows = "".join(
        "<tr>" + "".join(values[row] for _, values in columns) + "</tr>" for row in range(len(finding.examples))
    )
    table = page.table(f"Examples of {dotted(finding.feature)}", head, rows, "examples")
    first = next((example.request_id for example in finding.examples if example.request_id), "")
    command = ""
    if asked and first:
        told = "<span>Its source rows, and how to reproduce the truth:</span>"
        command = f'<p class="command">{told} {page.code(f"skewguard explain {first}")}</p>'
    return f"<h4>Examples: {count(len(finding.examples), finding.rows)} rows</h4>\n{table}\n{command}"


def _columns(examples: Sequence[Example], asked: bool) -> list[tuple[str, list[str]]]:
    """Header and cells of each column that has something to say."""

    def column(name: str, values: Iterator[str], kind: str = "") -> tuple[str, list[str]]:
        shown = f' class="{kind}"' if kind else ""
        return name, [f"<td{shown}>{value}</td>" for value in values]

    columns = [column("Served" if asked else "Found", (page.code(one.served) for one in examples), "served")]
    truths = (page.code(one.truth) if asked else page.safe(one.truth.removeprefix("expected ")) for one in examples)
    columns.append(column("Truth" if asked else "Expected", truths, "truth"))
    if any(example.request_id for example in examples):
        columns.append(column("Request" if asked else "Id", (page.code(one.request_id) for one in examples)))
    if any(example.as_of for example in examples):
        columns.append(column("As of", (page.safe(moment(one.as_of)) for one in examples), "when"))
    columns.append(column("Keys", (page.code(one.keys) for one in examples)))
    return columns


def _waived(verdict: Verdict) -> str:
    if not verdict.waived:
        return ""
    items = page.items(f"{_kind(finding)} {page.prose(sentence(finding))}" for finding in verdict.waived)
    return f"""<section aria-labelledby="waived">
<h2 id="waived">{plural(len(verdict.waived), "finding")} waived by the policy</h2>
<ul class="waived">{items}</ul>
</section>"""


def _quiet(verdict: Verdict) -> str:
    """Drift, after everything else and in a lower voice: it is no reason to refuse."""
    if not (verdict.quiet or verdict.advice or verdict.notes):
        return ""
    rows = "".join(
        f'<tr><th scope="row">{page.safe(dotted(shift.feature))}</th><td class="number">{shift.at_least:.3f}</td>'
        f'<td class="number">{shift.distance:.3f}</td>'
        f"<td>{page.prose(shift.message)}{_SKEWED if shift.skewed else ''}</td></tr>"
        for shift in verdict.quiet
    )
    head = page.head("Input", "At least#", "Distance#", "What moved")
    table = page.table("Inputs that moved", head, rows, "quiet") if rows else ""
    notes = "".join(f'<p class="note">{page.prose(note)}</p>' for note in verdict.notes)
    count_ = plural(len(verdict.quiet), "input") if verdict.quiet else "No input"
    return f"""<section class="drift" aria-labelledby="drift">
<h2 id="drift">Drift: {count_} moved since the snapshot</h2>
<p class="advice">{page.prose(verdict.advice)}</p>
{notes}
<p class="note">Drift compares two times, skew two paths. Nothing here is a reason for the ruling. Distances are total
variation, 0 to 1; at least so much of it is no chance.</p>
{table}
</section>"""


def _blind(verdict: Verdict) -> str:
    if not verdict.coverage.blind:
        return ""
    return f"""<section aria-labelledby="blind">
<h2 id="blind">What this check cannot see</h2>
<ul class="blind">{page.items(page.prose(line) for line in verdict.coverage.blind)}</ul>
</section>"""


def _provenance(verdict: Verdict) -> str:
    subject = verdict.subject
    digests = [
        ("Verdict", verdict.digest),
        ("Policy", verdict.policy_digest),
        ("Model", subject.model_digest),
        ("Bundle of definitions", subject.bundle_digest),
    ]
    rows = page.facts((name, page.code(digest) if digest else "none recorded") for name, digest in digests)
    return f"""<section class="provenance" aria-labelledby="provenance">
<h2 id="provenance">What this verdict is bound to</h2>
<dl class="facts">{rows}</dl>
</section>"""
