"""`watch`: the guard, while the log grows."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

from skewguard.cli.command import FAIL, PASS, UNKNOWN, Command, instant
from skewguard.errors import DefinitionError
from skewguard.workflows.project import Project


def _flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--log")
    parser.add_argument("--snapshot")
    parser.add_argument("--policy")
    parser.add_argument("--registered-name", help="the registered model that the verdict is for")
    parser.add_argument("--model-digest", help="judge only what this model answers")
    parser.add_argument("--model", metavar="DIR", help="that model's folder: compute its predictions again")
    parser.add_argument(
        "--since", metavar="WHEN", help="without a cursor, begin with what was asked since: 1h, an instant"
    )
    parser.add_argument("--every", default="5s", metavar="DURATION", help="look so often (5s)")
    parser.add_argument("--window", default="1h", metavar="DURATION", help="the verdict is about the last rows (1h)")
    parser.add_argument("--resolve-after", default="5m", metavar="DURATION", help="over after so long without it (5m)")
    parser.add_argument(
        "--idle", default="5m", metavar="DURATION", help="a log without rows for so long is a doubt (5m)"
    )
    parser.add_argument("--cursor", metavar="PATH", help="where a restart goes on (skewguard-watch.json)")
    parser.add_argument("--webhook", metavar="URL", help="post what is told, as Slack takes it (SKEWGUARD_WEBHOOK)")
    parser.add_argument("--metrics-port", type=int, metavar="N", help="serve metrics for Prometheus")
    parser.add_argument("--metrics-host", default="127.0.0.1", metavar="HOST", help="on this address (127.0.0.1)")
    parser.add_argument("--textfile", metavar="PATH", help="write metrics for the node exporter's textfile collector")
    parser.add_argument("--out", metavar="PATH", help="write the verdict as JSON, replaced at every look")
    parser.add_argument("--rounds", type=int, metavar="N", help="look N times, then exit as the guard does")
    parser.add_argument("--once", action="store_true", help="look once at what there is, then exit as the guard does")


def _watch(arguments: argparse.Namespace, project: Project) -> int:
    from skewguard.contract import microseconds
    from skewguard.gate.webhook import check_webhook
    from skewguard.model import load_model
    from skewguard.policy import load_policy
    from skewguard.report import to_json
    from skewguard.snapshot import load_snapshot
    from skewguard.verdict import Ruling
    from skewguard.workflows.watch import Settings, Watch, run
    from skewguard.workflows.watch.metrics import Endpoint

    rounds = 1 if arguments.once else arguments.rounds
    if rounds is not None and rounds < 1:
        raise DefinitionError(f"--rounds: expected 1 or more, got {rounds}")
    every, window, calm, idle = (
        microseconds(text) / 1e6
        for text in (arguments.every, arguments.window, arguments.resolve_after, arguments.idle)
    )
    webhook = arguments.webhook or os.environ.get("SKEWGUARD_WEBHOOK", "")
    if webhook:
        check_webhook(webhook)
    settings = Settings(
        since=_since(arguments.since, window),
        every=every,
        window=window,
        calm=calm,
        idle=idle,
        cursor=Path(arguments.cursor or "skewguard-watch.json"),
        webhook=webhook,
        out=Path(arguments.out) if arguments.out else None,
        textfile=Path(arguments.textfile) if arguments.textfile else None,
    )
    settings = replace(settings, patience=0.0) if arguments.once else settings
    endpoint = Endpoint(arguments.metrics_host, arguments.metrics_port) if arguments.metrics_port is not None else None
    before = signal.signal(signal.SIGTERM, _stopped)
    try:
        with Watch(
            project.require("log"),
            load_snapshot(project.require("snapshot")),
            load_policy(project.require("policy")),
            settings,
            model=load_model(arguments.model, expected_digest=arguments.model_digest) if arguments.model else None,
            model_digest=arguments.model_digest,
            registered_name=project.registered_name,
            tell=lambda text: print(text, file=sys.stderr if arguments.json else sys.stdout, flush=True),
        ) as watch:

            def after(_: object) -> None:
                if endpoint:
                    endpoint.text = watch.metrics

            ruling = run(watch, settings, rounds=rounds, after=after)
            verdict = watch.verdict
    except KeyboardInterrupt:
        return PASS
    finally:
        signal.signal(signal.SIGTERM, before)
        if endpoint:
            endpoint.close()
    print(to_json(verdict) if arguments.json else f"{ruling}: {verdict.reasons[0]}")
    return {Ruling.PASS: PASS, Ruling.FAIL: FAIL, Ruling.UNKNOWN: UNKNOWN}[ruling]


def _stopped(*_: object) -> NoReturn:
    """What SIGTERM does is what Ctrl-C does: the cursor stands after every look, so that nothing is lost."""
    raise KeyboardInterrupt


def _since(text: str | None, window: float) -> int:
    from skewguard.contract import microseconds

    now = time.time_ns() // 1000
    if text is None:
        return now - round(window * 1e6)
    try:
        return now - microseconds(text)
    except DefinitionError:
        return instant(text, "--since")


COMMANDS = {
    "watch": Command(
        _watch, _flags, "guard", "follow the log as it grows, judge it as the guard does, and tell what is wrong"
    ),
}
