"""A card's facts in their order: headings, sentences, facts and tables, for a page and for Markdown alike.

A text between backticks is code. A column whose name ends with # holds numbers.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from dataclasses import dataclass

from skewguard.contract import Contract
from skewguard.findings import Finding
from skewguard.report.card.facts import Card
from skewguard.report.wording import (
    KINDS,
    count,
    dotted,
    evidence,
    feature_evidence,
    further_reasons,
    headline,
    in_order,
    moment,
    plural,
    scope,
    share,
    tolerated,
    untold,
    window,
)
from skewguard.verdict import Coverage, Covered, Verdict

SKEW = "Training-serving skew"
_DURATIONS = ((86_400_000_000, "d"), (3_600_000_000, "h"), (60_000_000, "min"), (1_000_000, "s"))
_IMPORTANCES = 20
_REASONS = 5
_SPREADS = 2.0


@dataclass(frozen=True, slots=True)
class Table:
    """Column names, and rows of as many cells; the first cell names its row."""

    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True, slots=True)
class Part:
    """One section. `bars` are shares of 0 to 1, one per row of the table, for what is better seen than read."""

    title: str
    notes: tuple[str, ...] = ()
    facts: tuple[tuple[str, str], ...] = ()
    table: Table | None = None
    bars: tuple[float, ...] = ()
    commands: tuple[str, ...] = ()
    items: tuple[str, ...] = ()


def title(card: Card) -> str:
    """`flight-delay, version 3`."""
    name = card.registered_name or card.model_id
    return f"{name}, version {card.version}" if card.version else f"{name}, not registered"


def told(card: Card) -> str:
    """The verdict in one sentence."""
    if card.signed is not None and card.signed.revoked:
        return f"Its verdict was revoked: {card.signed.revoked}"
    return headline(card.verdict) if card.verdict else "Nobody has ruled on this model."


def top(card: Card) -> tuple[tuple[str, str], ...]:
    """Which model it is."""
    return (
        ("Logged model", _code(card.model_id)),
        ("Run", _code(card.run_id)),
        ("Logged at", moment(card.logged_at)),
        ("Predicts", _code(card.label)),
        ("Feature service", card.bundle.service),
        ("Digest of its files", _code(card.model_digest)),
    )


def parts(card: Card) -> Iterator[Part]:
    """Every section that has something to say."""
    yield _data(card)
    yield _sources(card)
    yield _metrics(card)
    if card.measured is not None:
        yield from _measured(card)
    yield _features(card)
    if card.verdict is not None:
        yield _evidence(card, card.verdict)
        if card.verdict.findings or card.verdict.waived:
            yield _findings(card.verdict)
    yield _proof(card)
    if card.parameters:
        yield Part("Parameters of the run", table=Table(("Parameter", "Value"), card.parameters))


def _code(text: str) -> str:
    return f"`{text}`" if text else ""


def _data(card: Card) -> Part:
    manifest = card.manifest
    rule = {
        "known": "each row has what was known when it was asked",
        "feast": "Feast's: the newest event before the ask, corrections that came later included",
    }.get(manifest.adopted or str(manifest.rule), manifest.adopted or str(manifest.rule))
    facts = (
        ("Snapshot", _code(manifest.id)),
        ("Rows", f"{manifest.rows:,}"),
        ("Window", f"{moment(manifest.since)} to {moment(manifest.until)}"),
        ("Rule", rule),
        ("Labels", ", ".join(map(_code, manifest.labels))),
        ("Definitions", _code(manifest.bundle_digest)),
        ("Adopted", "the rows came from elsewhere" if manifest.adopted else ""),
        ("Built at", moment(manifest.built_at)),
    )
    return Part("Data", facts=facts)


def _sources(card: Card) -> Part:
    """What each source held when the snapshot was built."""
    rows = []
    for view in card.bundle.views:
        months = card.manifest.sources.get(view.name, {})
        ends = " to ".join(dict.fromkeys((min(months), max(months)))) if months else "not recorded"
        total = sum(one.rows for one in months.values())
        latest = months[max(months)].hash[:16] if months else ""
        known = "yes" if view.source.created else "no"
        ttl = _duration(view.ttl_us) if view.ttl_us else "never expires"
        rows.append((view.name, ends, f"{total:,}", ttl, _duration(view.max_lag_us), known, _code(latest)))
    head = ("View", "Months", "Rows#", "Expires after", "May lag by", "Created time", "Digest of the last month")
    return Part(
        "Sources",
        ("Digests are per view and month; all of them lie in the snapshot's manifest.",),
        table=Table(head, tuple(rows)),
    )


def _metrics(card: Card) -> Part:
    notes = () if card.measured else (card.unmeasured,) if card.unmeasured else ()
    logged = tuple((name, f"{value:.4g}") for name, value in card.logged)
    if not logged:
        return Part("Metrics", (*notes, "Training logged none."))
    return Part("Metrics that training logged", notes, table=Table(("Metric", "Value#"), logged))


def _measured(card: Card) -> Iterator[Part]:
    seen = card.measured
    assert seen is not None  # noqa: S101  (its caller looked)
    rows = tuple(
        (
            f"{one.column.partition('__')[2] or one.column} {one.value}" if one.column else "all",
            f"{one.performance.rows:,}",
            "-" if one.performance.auc != one.performance.auc else f"{one.performance.auc:.3f}",
            f"{one.performance.log_loss:.3f}",
            f"{one.performance.accuracy:.1%}",
            f"{one.performance.mean_prediction:.1%}",
            f"{one.performance.mean_outcome:.1%}",
        )
        for one in seen.slices
    )
    head = ("Slice", "Rows#", "AUC#", "Log loss#", "Accuracy#", "Predicted#", "Happened#")
    note = (
        f"{plural(seen.rows, 'row')} of the snapshot that the model was not trained on, {moment(seen.since)} to "
        f"{moment(seen.until)}. Slices of fewer than 100 rows are left out."
    )
    yield Part("Metrics by slice", (note,), table=Table(head, rows))
    first = seen.importances[:_IMPORTANCES]
    most = max((one.rise for one in first), default=0.0)
    shuffled = tuple((dotted(one.feature), f"{one.rise:.5f}", f"{one.spread:.5f}") for one in first)
    noise = sum(one.rise <= _SPREADS * one.spread for one in seen.importances)
    note = (
        f"By how much the log loss rises when a feature's values are shuffled among {plural(seen.shuffled, 'row')} "
        f"({seen.shuffles} times). {noise} of {len(seen.importances)} features rise by no more than two standard "
        "deviations. Features that tell the same share their importance."
    )
    table = Table(("Feature", "Rise of log loss#", "Standard deviation#"), shuffled)
    yield Part("Importances", (note,), table=table, bars=tuple(max(0.0, one.rise) / (most or 1.0) for one in first))


def _features(card: Card) -> Part:
    bundle = card.bundle
    derived = {one.full_name: one for one in bundle.derived}
    judged = _apart(card.verdict) if card.verdict else {}
    rows = []
    for name in (*bundle.outputs, *(one.full_name for one in bundle.derived if one.is_model_input)):
        contract = bundle.contracts[name]
        how = _code(derived[name].function) if name in derived else "stored"
        row = (dotted(name), str(bundle.dtypes[name]), contract.owner or "nobody", _contract(contract), how)
        rows.append((*row, *((feature_evidence(judged[name]) if name in judged else "none",) if judged else ())))
    unowned = sum(not bundle.contracts[name].owner for name in bundle.contracts)
    notes = [f"{len(bundle.vector)} of them enter the model."]
    if unowned:
        notes.append(f"{plural(unowned, 'feature')} without an owner.")
    head = ("Feature", "Type", "Owner", "Contract", "Computed by", *(("Rows that bear on it",) if judged else ()))
    return Part("Features", (" ".join(notes),), table=Table(head, tuple(rows)))


def _apart(verdict: Verdict) -> dict[str, Covered]:
    """The evidence for each feature, where it is not the same rows for all of them."""
    seen = verdict.coverage
    return {one.name: one for one in seen.features} if seen.others or seen.scope.uncovered.count else {}


def _contract(contract: Contract) -> str:
    low, high = contract.minimum, contract.maximum
    told = [
        "no null" if contract.null == "refused" else "",
        f"{low:g} to {high:g}" if low is not None and high is not None else "",
        f"at least {low:g}" if low is not None and high is None else "",
        f"at most {high:g}" if high is not None and low is None else "",
        f"one of {len(contract.values)} values" if contract.values else "",
        f"unit {contract.unit}" if contract.unit else "",
        f"rtol {contract.rtol:g}" if contract.rtol else "",
        f"atol {contract.atol:g}" if contract.atol else "",
        f"{contract.benign_rate:.3g} may differ" if contract.benign_rate else "",
    ]
    return ", ".join(one for one in told if one) or "exact, null allowed"


def _duration(us: int) -> str:
    for unit, name in _DURATIONS:
        if us >= unit and us % unit == 0:
            return f"{us // unit} {name}"
    return f"{us / 1e6:g} s"


def _evidence(card: Card, verdict: Verdict) -> Part:
    seen = verdict.coverage
    facts = (
        ("Ruling", str(verdict.ruling)),
        ("Evidence", evidence(verdict.subject)),
        ("Requests", window(verdict)),
        ("Replayed", _fallen(seen)),
        ("Features", scope(verdict)),
        ("Values compared", f"{seen.values:,}"),
        ("Held against", seen.truth),
        ("Recomputed by the oracle", plural(seen.cross_checked, "row") if seen.cross_checked else ""),
        ("Looked for", ", ".join(kind.value for kind in seen.checked)),
        ("Whole report, beside this card", _code(card.report) if card.report else ""),
    )
    told = (*further_reasons(verdict)[:_REASONS], *(f"Not seen by it: {line}" for line in seen.blind))
    return Part(SKEW, facts=facts, items=told)


def _fallen(seen: Coverage) -> str:
    if not seen.rows:
        return "no request"
    named = (("equal", seen.equal), ("lagged within max_lag", seen.lagged), ("mismatched", seen.mismatched),
             ("unverifiable", seen.unverifiable))  # fmt: skip
    return f"{plural(seen.rows, 'request')}: " + ", ".join(f"{number:,} {name}" for name, number in named)


def _findings(verdict: Verdict) -> Part:
    rows = [
        (dotted(one.feature), one.kind.value, count(one.rows, one.of), share(one.rows, one.of), _meant(one, verdict))
        for one in in_order(verdict)
    ]
    rows += [
        (dotted(one.feature), one.kind.value, count(one.rows, one.of), share(one.rows, one.of), "waived by the policy")
        for one in verdict.waived
    ]
    return Part("Findings", table=Table(("Feature", "Kind", "Rows#", "Share#", "What"), tuple(rows)))


def _meant(finding: Finding, verdict: Verdict) -> str:
    what = finding.cause or untold(finding) or KINDS[finding.kind]
    return f"{what} (within the policy's limit)" if tolerated(verdict, finding) else what


def _proof(card: Card) -> Part:
    """What the verdict is bound to, and the commands that check it."""
    signed, verdict = card.signed, card.verdict
    name, model = shlex.quote(card.registered_name or "NAME"), card.model_id
    commands = (
        f"skewguard gate models:/{model} --name {name} --policy policy.toml",
        "skewguard audit verify --policy policy.toml --registry-uri REGISTRY",
        *(
            (f"skewguard pull models:/{name}/{card.version} --out served --trusted trusted.json",)
            if card.version
            else ()
        ),
    )
    if signed is None:
        return Part("The verdict's record", ("There is no signed record for this name.",), commands=commands[:1])
    facts = (
        ("Signed by key", _code(signed.key_id)),
        ("Signed at", moment(signed.signed_at)),
        ("Revoked", signed.revoked),
        ("Issued", moment(verdict.issued_at) if verdict else ""),
        ("Expires", moment(verdict.expires_at) if verdict else ""),
        ("Record (sha256)", _code(signed.digest)),
        ("Carried by the logged model's tag", _code(signed.tag)),
        ("Model that was judged", _code(verdict.subject.model_digest) if verdict else ""),
        ("Snapshot", _code(verdict.subject.snapshot_id) if verdict else ""),
        ("Definitions", _code(verdict.subject.bundle_digest) if verdict else ""),
        ("Policy", _code(verdict.policy_digest) if verdict else ""),
    )
    note = (
        "This page is a copy for reading and is not signed itself: what counts is the record. The first command asks "
        "the gate again, with the digest of the files as they lie there; the second checks the ledger."
    )
    return Part("The verdict's record, and how to check it", (note,), facts, commands=commands)
