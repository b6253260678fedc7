"""Policy: which models it governs, what it tolerates and how much evidence it wants. Data only, from a TOML file.

[policy]
governs = ["flight-delay"]          # registered model names, shell patterns allowed
evidence = ["shadow", "production"]  # kinds of evidence with which a version may be registered
promotion = ["production"]          # kinds of which it needs one for an alias or a stage
mode = "registration"               # what the gate refuses: registration, promotion alone, or observe
minimum_rows = 1000                  # fewer compared rows, of all or of one feature: UNKNOWN
minimum_own_rows = 100               # of these the model itself must have answered; a new feature needs no more, where
                                     # they are a shadow's or a probe's
maximum_unverifiable = 0.01          # a greater share of unverifiable rows: UNKNOWN
verdict_valid_for = "7d"
requires = ["expectation"]           # kinds of findings that must have been looked for: else UNKNOWN
false_alarm_rate = 0.05              # over all features with a declared benign rate, at however many looks
minimum_effect = 0.0                 # so much must a rate exceed the benign one to matter

[limits]                             # share of rows per kind of finding; absent kinds tolerate nothing
expectation = 0.0
performance = 0.0                    # a model that does worse is a note, unless this or `requires` names performance

[impact]                             # with the model at hand: judge what was served by what it does, not by rows alone
flips = 0.005                        # what turns this share of decisions is a failure; what turns fewer, a warning
threshold = 0.5                      # a score that reaches it is a decision

[modes]                              # other modes, by name or shell pattern; the first that matches counts
"experiment-*" = "observe"

[[waiver]]
kind = "expectation"
feature = "plane__year"
reason = "70 planes have no year; the owner knows"
expires = 2027-01-01
"""

from __future__ import annotations

import enum
import fnmatch
import hashlib
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from skewguard.contract import microseconds
from skewguard.errors import DefinitionError, PolicyError
from skewguard.findings import Kind

_MOST_ALARMS = 0.5
EVIDENCE = ("shadow", "production", "probe")
_SECTIONS: dict[str, type] = {"policy": dict, "limits": dict, "impact": dict, "modes": dict, "waiver": list}


class Mode(enum.StrEnum):
    """What the gate refuses a governed model: a version and an alias; an alias; nothing, but it writes down."""

    REGISTRATION = "registration"
    PROMOTION = "promotion"
    OBSERVE = "observe"


@dataclass(frozen=True, slots=True)
class Waiver:
    """An exception to a rule, until the end of the day `expires` (UTC)."""

    kind: Kind
    feature: str
    reason: str
    expires: date


@dataclass(frozen=True, slots=True)
class Policy:
    """What is tolerated, for which models. `digest` identifies the file's content (sha256, hex).

    `flips` is the share of decisions (scores that reach `threshold`) from which what was served wrongly is a failure,
    whatever its limit says; None: rows decide.
    """

    governs: tuple[str, ...]
    evidence: tuple[str, ...] = ("shadow", "production")
    promotion: tuple[str, ...] = ("production",)
    mode: Mode = Mode.REGISTRATION
    modes: tuple[tuple[str, Mode], ...] = ()
    minimum_rows: int = 1000
    minimum_own_rows: int = 100
    maximum_unverifiable: float = 0.01
    valid_for_us: int = 7 * 86_400_000_000
    limits: Mapping[Kind, float] | None = None
    waivers: tuple[Waiver, ...] = ()
    digest: str = ""
    requires: tuple[Kind, ...] = ()
    false_alarm_rate: float = 0.05
    minimum_effect: float = 0.0
    flips: float | None = None
    threshold: float = 0.5

    @property
    def own_rows(self) -> int:
        """So many rows must the model itself have answered."""
        return min(self.minimum_own_rows, self.minimum_rows)

    def governs_model(self, name: str) -> bool:
        """Whether the registered model `name` is governed."""
        return any(fnmatch.fnmatchcase(name, pattern) for pattern in self.governs)

    def mode_of(self, name: str) -> Mode:
        """What the gate refuses the governed model `name`."""
        return next((mode for pattern, mode in self.modes if fnmatch.fnmatchcase(name, pattern)), self.mode)

    def asks_for(self, kind: Kind) -> bool:
        """Whether the policy names findings of `kind`: requires or limits them."""
        return kind in self.requires or kind in (self.limits or {})

    def limit(self, kind: Kind) -> float:
        """The tolerated share of rows for findings of `kind`."""
        return (self.limits or {}).get(kind, 0.0)


def load_policy(path: str | Path) -> Policy:
    """Read a policy file; raises `PolicyError` with every complaint."""
    try:
        raw = Path(path).read_bytes()
        data = tomllib.loads(raw.decode())
    except (OSError, ValueError) as error:
        raise PolicyError(f"policy {path}: {error}") from error
    complaints = [f"{name}: unknown section" for name in data if name not in _SECTIONS]
    for name, kind in _SECTIONS.items():
        if not isinstance(data.setdefault(name, kind()), kind):
            complaints.append(f"{name}: expected {'[[waiver]] sections' if kind is list else f'a section [{name}]'}")
            data[name] = kind()
    settings = _settings(dict(data["policy"]), complaints)
    limits = _limits(data["limits"], complaints)
    flips, threshold = _impact(data["impact"], complaints)
    modes = tuple((name, _mode(f"modes.{name}", text, complaints)) for name, text in data["modes"].items())
    waivers = tuple(w for i, given in enumerate(data["waiver"]) if (w := _waiver(i, given, complaints)))
    if complaints:
        raise PolicyError([f"{path}: {complaint}" for complaint in complaints])
    return Policy(
        **settings, limits=limits, modes=modes, waivers=waivers, flips=flips, threshold=threshold,
        digest=hashlib.sha256(raw).hexdigest(),
    )  # fmt: skip


def _settings(data: dict[str, Any], complaints: list[str]) -> dict[str, Any]:
    """The fields of `Policy` that [policy] gives."""

    def take(name: str, what: str, kind: type | tuple[type, ...], default: Any) -> Any:
        value = data.pop(name, default)
        if not isinstance(value, kind) or isinstance(value, bool):
            complaints.append(f"policy.{name}: expected {what}, got {value!r}")
            return default
        return value

    governs = take("governs", "a list", list, [])
    if not governs or not all(isinstance(name, str) for name in governs):
        complaints.append("policy.governs: expected a list of at least one registered model name")
    evidence = take("evidence", "a list", list, ["shadow", "production"])
    promotion = take("promotion", "a list", list, ["production"])
    for name, kinds in (("evidence", evidence), ("promotion", promotion)):
        if not kinds:
            complaints.append(
                f"policy.{name}: expected at least one of {', '.join(EVIDENCE)}: else nothing ever passes"
            )
        complaints += [f"policy.{name}: {e!r} is none of {', '.join(EVIDENCE)}" for e in kinds if e not in EVIDENCE]
    mode = _mode("policy.mode", take("mode", "a mode", str, "registration"), complaints)
    rows, own = take("minimum_rows", "a whole number", int, 1000), take("minimum_own_rows", "a whole number", int, 100)
    complaints += [
        f"policy.{name}: expected at least 1, got {least}: no evidence is never a PASS"
        for name, least in (("minimum_rows", rows), ("minimum_own_rows", own))
        if least < 1
    ]
    unverifiable = float(take("maximum_unverifiable", "a number", (int, float), 0.01))
    if not 0 <= unverifiable < 1:
        complaints.append(f"policy.maximum_unverifiable: expected a share of rows in [0, 1), got {unverifiable}")
    requires = take("requires", "a list", list, [])
    unknown = [repr(kind) for kind in requires if kind not in list(Kind)]
    complaints += [f"policy.requires: {k} is no kind of finding; there are {', '.join(Kind)}" for k in unknown]
    alarms = float(take("false_alarm_rate", "a number", (int, float), 0.05))
    effect = float(take("minimum_effect", "a number", (int, float), 0.0))
    if not 0 < alarms <= _MOST_ALARMS or not 0 <= effect < 1:
        complaints.append(
            f"policy: expected false_alarm_rate in (0, {_MOST_ALARMS}] and minimum_effect in [0, 1), "
            f"got {alarms}, {effect}"
        )
    valid = 0
    try:
        valid = microseconds(take("verdict_valid_for", "a duration such as 7d", str, "7d"))
    except DefinitionError as error:
        complaints.append(f"policy.verdict_valid_for: {error}")
    complaints += [f"policy.{name}: unknown setting" for name in data]
    return {
        "governs": tuple(governs),
        "evidence": tuple(evidence),
        "promotion": tuple(promotion),
        "mode": mode,
        "minimum_rows": rows,
        "minimum_own_rows": own,
        "maximum_unverifiable": unverifiable,
        "valid_for_us": valid,
        "requires": tuple(Kind(kind) for kind in requires if kind in list(Kind)),
        "false_alarm_rate": alarms,
        "minimum_effect": effect,
    }


def _mode(where: str, text: object, complaints: list[str]) -> Mode:
    if text not in list(Mode):
        complaints.append(f"{where}: expected one of {', '.join(Mode)}, got {text!r}")
        return Mode.REGISTRATION
    return Mode(str(text))


def _limits(data: Mapping[str, Any], complaints: list[str]) -> dict[Kind, float]:
    limits = {}
    for name, value in data.items():
        if name not in list(Kind):
            complaints.append(f"limits.{name}: no such kind of finding; there are {', '.join(Kind)}")
        elif isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1:
            complaints.append(f"limits.{name}: expected a share of rows in [0, 1), got {value!r}")
        else:
            limits[Kind(name)] = float(value)
    return limits


def _impact(data: Mapping[str, Any], complaints: list[str]) -> tuple[float | None, float]:
    """(share of decisions, the score from which one is made)."""
    complaints += [f"impact.{name}: unknown setting" for name in data if name not in ("flips", "threshold")]
    flips, threshold = data.get("flips"), data.get("threshold", 0.5)
    share = float(flips) if isinstance(flips, int | float) and not isinstance(flips, bool) else None
    if "flips" in data and not (share is not None and 0 < share <= 1):
        complaints.append(f"impact.flips: expected a share of decisions in (0, 1], got {flips!r}")
    if data and "flips" not in data:
        complaints.append("impact.flips: missing; it says from which share of decisions on a finding is a failure")
    if isinstance(threshold, bool) or not isinstance(threshold, int | float):
        complaints.append(f"impact.threshold: expected a score such as 0.5, got {threshold!r}")
        return None, 0.5
    return share, float(threshold)


def _waiver(index: int, data: object, complaints: list[str]) -> Waiver | None:
    if not isinstance(data, dict):
        complaints.append(f"waiver {index + 1}: expected a section [[waiver]], got {data!r}")
        return None
    known = ("kind", "feature", "reason", "expires")
    complaints += [f"waiver {index + 1}: {name}: unknown setting" for name in data if name not in known]
    missing = [name for name in known if not data.get(name)]
    if missing:
        complaints.append(f"waiver {index + 1}: {', '.join(missing)} missing; a waiver says what, why and until when")
        return None
    if data["kind"] not in list(Kind) or type(data["expires"]) is not date:
        complaints.append(
            f"waiver {index + 1}: expected kind to be one of {', '.join(Kind)} and expires a date such as 2027-01-01, "
            f"got {data['kind']!r} and {data['expires']}"
        )
        return None
    return Waiver(Kind(data["kind"]), str(data["feature"]), str(data["reason"]), data["expires"])
