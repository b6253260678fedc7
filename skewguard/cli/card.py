"""`card`: the model card of a registered version."""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path

from skewguard.cli.command import PASS, Command, instant
from skewguard.errors import SkewguardError
from skewguard.workflows.project import Project


def _flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", help="models:/m-..., a logged model's id or URI")
    parser.add_argument("--name", help="the registered name (default: registered_name)")
    parser.add_argument("--snapshot", help="what the model was trained on")
    parser.add_argument("--verdict", metavar="PATH", help="the whole verdict, as `guard --out` wrote it: with findings")
    parser.add_argument("--label", default="", help="the label that it predicts (default: the snapshot's first)")
    parser.add_argument(
        "--trained-until", metavar="INSTANT", help="its last training row: later ones are held out (default: the run's)"
    )
    parser.add_argument("--slice", action="append", metavar="COLUMN", help="measure by this column; may be repeated")
    parser.add_argument("--trusted", metavar="PATH", help="the trust file (SKEWGUARD_TRUSTED_KEYS)")
    parser.add_argument("--out", metavar="DIR", help="write the card here, and nothing into MLflow")
    parser.add_argument("--registry-uri", help="default: MLflow's own")
    parser.add_argument("--tracking-uri", help="default: MLflow's own")


def _run(arguments: argparse.Namespace, project: Project) -> int:
    from datetime import UTC, datetime

    from skewguard.gate.keys import TRUST_ENV, load_trust
    from skewguard.report.card import to_html, to_markdown
    from skewguard.snapshot import load_snapshot
    from skewguard.workflows.card import PAGE, TEXT, Stores, Whole, make_card, publish

    trusted = arguments.trusted or os.environ.get(TRUST_ENV)
    if not trusted:
        raise SkewguardError(f"card: give --trusted, or set {TRUST_ENV}")
    until = None
    if arguments.trained_until:
        until = datetime.fromtimestamp(instant(arguments.trained_until, "--trained-until") / 1e6, UTC)
    stores = Stores(load_trust(trusted), arguments.tracking_uri, arguments.registry_uri)
    card = make_card(
        arguments.model.removeprefix("models:/").rstrip("/"),
        arguments.name or project.require("registered_name"),
        load_snapshot(project.require("snapshot")),
        stores,
        verdict=Whole.read(arguments.verdict) if arguments.verdict else None,
        label=arguments.label,
        trained_until=until,
        slice_by=arguments.slice or (),
    )
    if arguments.out:
        folder = Path(arguments.out)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / PAGE).write_text(to_html(card), encoding="utf-8")
        (folder / TEXT).write_text(to_markdown(card), encoding="utf-8")
        where = str(folder)
    else:
        where = publish(card, stores)
    said = {"model_id": card.model_id, "name": card.registered_name, "version": card.version, "card": where}
    place = where if arguments.out else f"{where} of run {card.run_id}"
    print(json.dumps(said) if arguments.json else f"{place}: {PAGE} and {TEXT}")
    return PASS


COMMANDS = {
    "card": Command(_run, _flags, "mlflow", "the model card of a registered version, among its run's artifacts"),
}
