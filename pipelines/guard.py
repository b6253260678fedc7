"""Replay -> verdict -> gate, for one candidate. `python -m pipelines.guard --help`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from pipelines.command import exit_code
from pipelines.train import Candidate, load_candidate
from skewguard import report
from skewguard.errors import Refused
from skewguard.findings import Finding
from skewguard.gate.keys import SigningKey, load_trust
from skewguard.gate.mlflow import Gate, attach_verdict, register
from skewguard.model import load_model
from skewguard.policy import load_policy
from skewguard.snapshot import Snapshot, load_snapshot
from skewguard.verdict import Verdict
from skewguard.workflows.card import Stores, Whole, make_card, publish
from skewguard.workflows.guard import guard


@dataclass(frozen=True, slots=True)
class Target:
    """The registered name that a candidate is to bear, and where. The registry is the gated one beside the tracking."""

    name: str
    tracking_uri: str
    alias: str = "champion"

    @property
    def registry_uri(self) -> str:
        """The same store, behind the gate."""
        return f"skewguard:{self.tracking_uri}"


@dataclass(frozen=True, slots=True)
class Gated:
    """What the guard ruled and the gate did: `version` is None where MLflow refused, with its sentence.

    `card` is where the model card lies among the run's artifacts, empty where nothing was registered."""

    verdict: Verdict
    version: str | None
    refusal: str
    card: str = ""


def guard_and_register(
    log: Path,
    snapshot: Snapshot,
    policy: Path,
    candidate: Candidate,
    target: Target,
    key: SigningKey,
    *,
    out: Path,
    findings: Sequence[Finding] = (),
    cross_check: int = 0,
) -> Gated:
    """Judge what the candidate answered, sign the verdict, attach it to the candidate, and ask the registry to take it.

    Writes `out`.json (the verdict) and `out`.html (the report), and the model card of what was registered.
    """
    verdict = guard(
        log,
        snapshot,
        load_policy(policy),
        registered_name=target.name,
        model_id=candidate.model_id,
        model_digest=candidate.digest,
        model=load_model(candidate.folder, expected_digest=candidate.digest),
        extra=findings,
        cross_check=cross_check,
    ).verdict
    out.parent.mkdir(parents=True, exist_ok=True)
    out.with_suffix(".json").write_text(report.to_json(verdict))
    out.with_suffix(".html").write_text(report.to_html(verdict, title=f"{target.name}: {candidate.model_id}"))
    attach_verdict(candidate.model_id, verdict, key, target.tracking_uri)
    try:
        version = register(
            candidate.model_id,
            target.name,
            alias=target.alias,
            registry_uri=target.registry_uri,
            tracking_uri=target.tracking_uri,
        )
    except Refused as refused:
        return Gated(verdict, None, str(refused))
    return Gated(verdict, version, "", _card(candidate, snapshot, target, verdict))


def _card(candidate: Candidate, snapshot: Snapshot, target: Target, verdict: Verdict) -> str:
    """Put the registered version's card where people look for it: in MLflow, among the artifacts of the run."""
    trust = load_trust(Gate.from_environment(tracking_uri=target.tracking_uri).trust)
    stores = Stores(trust, target.tracking_uri, target.registry_uri)
    return publish(make_card(candidate.model_id, target.name, snapshot, stores, verdict=Whole.of(verdict)), stores)


def main(argv: Sequence[str] | None = None) -> int:
    """Exit 0 where the model was registered, 1 where it was refused, 2 where it could not run."""
    return exit_code("guard", lambda: _main(argv))


def _main(argv: Sequence[str] | None) -> int:
    parser = argparse.ArgumentParser(prog="python -m pipelines.guard", description=__doc__)
    parser.add_argument("--log", type=Path, required=True)
    parser.add_argument("--snapshot", type=Path, required=True)
    parser.add_argument("--policy", type=Path, required=True)
    parser.add_argument("--candidate", type=Path, required=True, help="what `pipelines.train` wrote")
    parser.add_argument("--registered-name", default="flight-delay")
    parser.add_argument("--tracking-uri", required=True)
    parser.add_argument("--key", type=Path, required=True, help="the key that signs the verdict")
    parser.add_argument("--out", type=Path, required=True, help="verdict and report, without suffix")
    parser.add_argument("--cross-check", type=int, default=0)
    arguments = parser.parse_args(argv)
    gated = guard_and_register(
        arguments.log,
        load_snapshot(arguments.snapshot),
        arguments.policy,
        load_candidate(arguments.candidate),
        Target(arguments.registered_name, arguments.tracking_uri),
        SigningKey.load(arguments.key),
        out=arguments.out,
        cross_check=arguments.cross_check,
    )
    Console().print(report.renderable(gated.verdict))
    print(f"registered as version {gated.version}" if gated.version else gated.refusal)
    return 0 if gated.version else 1


if __name__ == "__main__":
    sys.exit(main())
