"""A verdict and its findings in words: the same ones in the terminal, on the page and in a summary."""

from __future__ import annotations

import json
import unicodedata
from datetime import datetime

from skewguard.findings import Finding, Impact, Kind, Tap
from skewguard.verdict import Covered, Names, Ruling, Subject, Verdict

KINDS = {
    Kind.MISMATCH: "served differs from the truth",
    Kind.STALE: "served an older row than max_lag allows",
    Kind.LEAK: "the value could not have been known when it was asked for",
    Kind.EXPECTATION: "an expectation of the data does not hold",
    Kind.CONTRACT: "the feature's contract is broken",
    Kind.DEFINITION: "log and snapshot come from different definitions",
    Kind.ORACLE: "the join and the independent oracle disagree",
    Kind.LOG: "the serving log is not what it should be",
    Kind.DUPLICATE: "a request was logged more than once",
    Kind.INCOMPLETE: "the log does not hold all that was answered",
    Kind.CONSTRAINT: "what always held in the snapshot does not hold",
    Kind.FROZEN: "the source repeats itself, or stands still",
    Kind.CLOCK: "a column that tells the time disagrees with the clock",
    Kind.PERFORMANCE: "the model does worse than in the window before",
}
TAPS = {
    Tap.STORE: "first differs in what the store answered",
    Tap.TRANSFORM: "first differs in what the transforms made of it",
    Tap.MODEL_INPUT: "first differs in what the model was given",
    Tap.PREDICTION: "first differs in the prediction",
    Tap.NONE: "",
}
EVIDENCE = {
    "shadow": "the candidate answered these requests itself before it is registered",
    "production": "requests that production answered",
    "batch": "predictions computed in batch from the offline sources, which say nothing about the online path",
    "probe": "asks of the training set and edge cases, sent through the candidate's online path before any traffic",
}
_TURNS_TEXT = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def to_json(verdict: Verdict) -> str:
    """The verdict as indented JSON; `Verdict.from_json` reads it back."""
    return json.dumps(verdict.to_json(), indent=2, sort_keys=True, allow_nan=False)


def headline(verdict: Verdict) -> str:
    """The verdict in one sentence."""
    model = plain(verdict.subject.registered_name) or "The model"
    reason = plain(verdict.reasons[0]).rstrip(".") if verdict.reasons else "no reason was recorded"
    seen = verdict.coverage
    if verdict.ruling is Ruling.PASS:
        return f"{model} may be registered: {reason}."
    if verdict.ruling is Ruling.UNKNOWN:
        return f"{model} cannot be judged, so it is not registered: {reason}."
    if seen.mismatched:
        reason = (
            f"{count(seen.mismatched, seen.rows)} requests were answered with values that training would not have seen"
        )
    return f"{model} must not be registered: {reason}."


def sentence(finding: Finding) -> str:
    """One finding in one sentence.

    `weather.wind_speed: 412 of 9,800 rows, served = truth x 1.609, only build B, since 14:05`
    """
    feature = dotted(finding.feature)
    rows = f"{count(finding.rows, finding.of)} rows"
    if finding.cause or finding.kind in (Kind.MISMATCH, Kind.STALE, Kind.LEAK, Kind.ORACLE):
        cause = plain(finding.cause).rstrip(".") or KINDS[finding.kind]
        return ", ".join([f"{feature}: {rows}", cause, *(plain(one) for one in finding.slices)])
    told = untold(finding)
    if not told:
        return f"{feature}: {rows}, {KINDS[finding.kind]}"
    return f"{feature}: {told}" if rows in told else f"{feature}: {rows}, {told}"


def effect(impact: Impact | None) -> str:
    """What a difference does to the predictions; empty where it was not measured."""
    if impact is None:
        return ""
    if not impact.moved:
        return "no prediction moves"
    told = (
        f"{count(impact.moved, impact.rows)} predictions move, by {impact.mean_delta:.3g} on average and "
        f"{impact.greatest_delta:.3g} at most; {plural(impact.flips, 'decision')} at {impact.threshold:g} "
        f"{'turns' if impact.flips == 1 else 'turn'}"
    )
    if impact.labelled:
        told += (
            f"; log loss {impact.loss_served:.3f} instead of {impact.loss_truth:.3f} on "
            f"{plural(impact.labelled, 'outcome')}"
        )
    return told


def untold(finding: Finding) -> str:
    """The finding's message without the feature that it begins with and the full stop that it ends with."""
    message = plain(finding.message).strip().rstrip(".")
    for name in (dotted(finding.feature), plain(finding.feature)):
        message = message.removeprefix(f"{name}: ")
    return message


def dotted(feature: str) -> str:
    """A feature as people read it: `view.feature`."""
    return plain(feature).replace("__", ".", 1)


def count(some: int, of: int) -> str:
    """`412 of 9,800`."""
    return f"{some:,} of {of:,}"


def share(some: int, of: int) -> str:
    """A share as a percentage that never rounds a few to none, nor nearly all to all."""
    if not of:
        return "-"
    percent = 100 * some / of
    if 0 < percent < 0.01:
        return "<0.01%"
    if 99.99 < percent < 100:
        return ">99.99%"
    return f"{percent:.2f}".rstrip("0").rstrip(".") + "%"


def plural(number: int, noun: str) -> str:
    """`1 finding`, `7 findings`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def moment(text: str) -> str:
    """An instant as people read it; what is no instant stays as it is."""
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        return plain(text)
    utc = " UTC" if at.utcoffset() is not None and not at.utcoffset() else ""
    seconds = ":%S" if at.second else ""
    return at.strftime(f"%Y-%m-%d %H:%M{seconds}") + (utc or at.strftime(" %z").rstrip())


def window(verdict: Verdict) -> str:
    """First and last ask."""
    seen = verdict.coverage
    ends = [moment(one) for one in (seen.since, seen.until) if one]
    return " to ".join(ends)


def evidence(subject: Subject) -> str:
    """The kinds of evidence, and what they mean."""
    kinds = plain(subject.evidence).split(", ")
    return "; ".join(f"{kind}: {EVIDENCE[kind]}" if kind in EVIDENCE else kind for kind in kinds)


def feature_evidence(one: Covered) -> str:
    """How many rows of which kind bear on a feature: `1,200 shadow; 5,000 production of other models`."""
    told = [f"{rows:,} {plain(kind)}" for kind, rows in one.own]
    told += [f"{rows:,} {plain(kind)} of other models" for kind, rows in one.others]
    return "; ".join(told) or "none"


def scope(verdict: Verdict) -> str:
    """For how many features there is enough evidence, and for which there is not; empty where it was not counted."""
    seen, found = verdict.coverage, verdict.coverage.scope
    if not found.features:
        return ""
    told = f"{found.features - found.uncovered.count:,} of {found.features:,} features have enough evidence"
    if found.uncovered.count:
        told += f"; not {_named(found.uncovered)}"
    if seen.others:
        told += f"; {plural(seen.others, 'row')} of other models looked at for features they share"
    if found.unpromoted.count:
        told += (
            f"; before an alias the policy asks for another kind of evidence on "
            f"{plural(found.unpromoted.count, 'feature')} ({_named(found.unpromoted)})"
        )
    return told


def _named(names: Names) -> str:
    return str(Names(names.count, tuple(dotted(one) for one in names.first)))


def further_reasons(verdict: Verdict) -> list[str]:
    """The reasons that are neither in the headline nor findings, which are shown on their own."""
    told = {finding.message for finding in verdict.findings}
    top = headline(verdict)
    reasons = [plain(reason) for reason in verdict.reasons if reason not in told]
    return [reason for reason in reasons if reason.rstrip(".") not in top]


def tolerated(verdict: Verdict, finding: Finding) -> bool:
    """Whether the finding stays within its kind's limit: it is no reason for the ruling."""
    return finding.message not in verdict.reasons


def in_order(verdict: Verdict) -> list[Finding]:
    """The findings that decided first, then those within their limit."""
    return sorted(verdict.findings, key=lambda finding: tolerated(verdict, finding))


def plain(text: str) -> str:
    """`text` with nothing in it that moves the cursor, turns the line around or cannot be encoded.

    Values come from anybody's requests and end up on a terminal and in a page.
    """
    return "".join(_visible(character) for character in text)


def _visible(character: str) -> str:
    if character in "\t\n":
        return " "
    if character in _TURNS_TEXT or unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp"):
        return f"\\u{ord(character):04x}"
    return character
