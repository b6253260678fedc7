"""`keys`, `gate`, `revoke`, `pull` and `audit`: who may rule, what a registry would answer, and what may be served."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable
from typing import TYPE_CHECKING

from skewguard.cli.command import FAIL, PASS, UNKNOWN, Command
from skewguard.errors import Refused, SkewguardError
from skewguard.workflows.project import Project

if TYPE_CHECKING:
    from skewguard.gate.keys import SigningKey


def signing_key(path: str | None) -> SigningKey:
    """The key of `--key` or of SKEWGUARD_SIGNING_KEY."""
    from skewguard.gate.keys import SIGNING_KEY_ENV, SigningKey

    found = path or os.environ.get(SIGNING_KEY_ENV)
    if not found:
        raise SkewguardError(
            f"a verdict is signed: give --key, or set {SIGNING_KEY_ENV}; `skewguard keys new` makes one"
        )
    return SigningKey.load(found)


def _keys_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("action", choices=list(_KEYS))
    parser.add_argument(
        "what", nargs="?", help="new: the file to write; trust: a public key's file; revoke: a key's id"
    )
    parser.add_argument(
        "--trusted", metavar="PATH", help="trust, revoke, list: the trust file (SKEWGUARD_TRUSTED_KEYS)"
    )
    parser.add_argument("--name", default="", help="trust: whose key it is")
    parser.add_argument("--reason", default="", help="revoke: why")


def _keys(arguments: argparse.Namespace, _: Project) -> int:
    return _KEYS[arguments.action](arguments)


def _keys_new(arguments: argparse.Namespace) -> int:
    from skewguard.gate.keys import SigningKey

    key = SigningKey.new()
    path = _given(arguments.what, "keys new", "the file to write")
    public = key.save(path)
    _say(
        arguments,
        {"id": key.id, "private": path, "public": str(public)},
        f"{path}: key {key.id}; its public half: {public}",
    )
    return PASS


def _keys_trust(arguments: argparse.Namespace) -> int:
    from skewguard.gate.keys import trust_key

    path = _trusted(arguments)
    key = trust_key(path, _given(arguments.what, "keys trust", "a public key's file"), arguments.name)
    _say(arguments, {"id": key.id, "trusted": path}, f"{path}: key {key.id} is trusted")
    return PASS


def _keys_revoke(arguments: argparse.Namespace) -> int:
    from skewguard.gate.keys import revoke_key

    path, reason = _trusted(arguments), _given(arguments.reason, "keys revoke", "--reason")
    key = revoke_key(path, _given(arguments.what, "keys revoke", "a key's id"), reason)
    _say(
        arguments, {"id": key.id, "revoked_at": key.revoked_at}, f"{path}: key {key.id} was revoked at {key.revoked_at}"
    )
    return PASS


def _keys_list(arguments: argparse.Namespace) -> int:
    from dataclasses import asdict

    from skewguard.gate.keys import load_trust

    keys = load_trust(_trusted(arguments)).keys
    lines = [
        f"{key.id}  {key.name or '(no name)'}  trusted since {key.trusted_at}"
        + (f", revoked at {key.revoked_at}: {key.reason}" if key.revoked_at else "")
        for key in keys
    ]
    _say(arguments, [asdict(key) for key in keys], "\n".join(lines))
    return PASS


_KEYS: dict[str, Callable[[argparse.Namespace], int]] = {
    "new": _keys_new,
    "trust": _keys_trust,
    "revoke": _keys_revoke,
    "list": _keys_list,
}


def _gate_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", help="models:/m-..., a logged model's id or URI")
    parser.add_argument("--name", required=True, help="the registered name that it is to bear")
    parser.add_argument("--promotion", action="store_true", help="whether it may have an alias, too")
    _gate_files(parser)


def _gate_files(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--policy")
    parser.add_argument("--trusted", metavar="PATH", help="the trust file (SKEWGUARD_TRUSTED_KEYS; beside the policy)")
    parser.add_argument("--ledger", metavar="PATH", help="the gate's ledger (SKEWGUARD_LEDGER; beside the policy)")
    parser.add_argument("--tracking-uri", help="where the model was logged (default: MLflow's own)")


def _gate(arguments: argparse.Namespace, project: Project) -> int:
    from skewguard.gate.mlflow import Gate
    from skewguard.verdict import Ruling

    gate = Gate.from_environment(_environment(arguments, project), arguments.tracking_uri)
    model_id = arguments.model.removeprefix("models:/").rstrip("/")
    if gate.mode(arguments.name) is None:
        _say(arguments, {"answer": "ungoverned"}, f"{arguments.name!r} is not governed by {gate.policy}")
        return PASS
    try:
        admitted = gate.ask(arguments.name, model_id, promotion=arguments.promotion)
    except Refused as refused:
        unknown = f"its verdict is {Ruling.UNKNOWN}" in str(refused) or "it has no verdict" in str(refused)
        _say(arguments, {"answer": "unknown" if unknown else "refused", "why": str(refused)}, str(refused))
        return UNKNOWN if unknown else FAIL
    said = {"answer": "admitted", "model_id": admitted.model_id, "record": admitted.record.digest}
    _say(arguments, said, f"model {admitted.model_id} may bear the name {arguments.name!r}")
    return PASS


def _revoke_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model_id", help="m-..., a logged model's id")
    parser.add_argument("--name", required=True, help="the registered name that its verdict is for")
    parser.add_argument("--reason", required=True, help="why: it is what whoever is refused reads")
    parser.add_argument("--key", metavar="PATH", help="the signing key (SKEWGUARD_SIGNING_KEY)")
    parser.add_argument("--tracking-uri", help="where the model was logged (default: MLflow's own)")


def _revoke(arguments: argparse.Namespace, _: Project) -> int:
    from skewguard.gate.mlflow import revoke_verdict

    key = signing_key(arguments.key)
    revoke_verdict(arguments.model_id, arguments.name, arguments.reason, key, arguments.tracking_uri)
    said = f"the verdict on {arguments.model_id} for {arguments.name!r} was revoked: {arguments.reason}"
    _say(arguments, {"revoked": arguments.model_id, "name": arguments.name}, said)
    return PASS


def _pull_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", help="models:/NAME@ALIAS or models:/NAME/VERSION")
    parser.add_argument("--out", required=True, metavar="DIR", help="where verified models lie, and `current` points")
    parser.add_argument("--trusted", metavar="PATH", help="the trust file (SKEWGUARD_TRUSTED_KEYS)")
    parser.add_argument("--watch", type=float, metavar="SECONDS", help="go on, and look that often")
    parser.add_argument("--webhook", metavar="URL", help="post to it, Slack-compatible, when a model is refused")
    parser.add_argument("--registry-uri", help="default: MLflow's own")
    parser.add_argument("--tracking-uri", help="default: MLflow's own")


def _pull(arguments: argparse.Namespace, _: Project) -> int:
    from dataclasses import asdict

    from skewguard.gate.mlflow.pull import Registry, pull, watch

    registry = Registry(arguments.model, _trusted(arguments), arguments.registry_uri, arguments.tracking_uri)
    if arguments.watch:
        watch(registry, arguments.out, every=arguments.watch, webhook=arguments.webhook, tell=print)
        return PASS
    try:
        pulled = pull(registry, arguments.out)
    except Refused as refused:
        _say(arguments, {"refused": str(refused)}, str(refused))
        return FAIL
    said = f"{pulled.folder}: version {pulled.version} of {pulled.name!r}, digest {pulled.digest}"
    _say(arguments, asdict(pulled), said + ("" if pulled.changed else ", as before"))
    return PASS


def _audit_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("action", choices=["verify"])
    parser.add_argument("--registry-uri", help="hold the registered versions against the ledger, too")
    _gate_files(parser)


def _audit(arguments: argparse.Namespace, project: Project) -> int:
    from skewguard.gate.mlflow import Gate
    from skewguard.gate.mlflow.audit import audit_ledger

    gate = Gate.from_environment(_environment(arguments, project), arguments.tracking_uri)
    audited = audit_ledger(gate, arguments.registry_uri)
    text = "\n".join([f"{gate.ledger}: {audited.lines:,} lines, head {audited.head}", *audited.problems])
    _say(arguments, {"lines": audited.lines, "head": audited.head, "problems": list(audited.problems)}, text)
    return FAIL if audited.problems else PASS


def _environment(arguments: argparse.Namespace, project: Project) -> dict[str, str]:
    """The process's environment under the flags."""
    given = {
        "SKEWGUARD_POLICY": project.policy,
        "SKEWGUARD_TRUSTED_KEYS": arguments.trusted,
        "SKEWGUARD_LEDGER": arguments.ledger,
    }
    return dict(os.environ) | {name: value for name, value in given.items() if value}


def _trusted(arguments: argparse.Namespace) -> str:
    from skewguard.gate.keys import TRUST_ENV

    return _given(arguments.trusted or os.environ.get(TRUST_ENV), arguments.command, f"--trusted, or set {TRUST_ENV}")


def _given(value: str | None, command: str, what: str) -> str:
    if not value:
        raise SkewguardError(f"{command}: give {what}")
    return value


def _say(arguments: argparse.Namespace, data: object, text: str) -> None:
    print(json.dumps(data) if arguments.json else text)


COMMANDS = {
    "keys": Command(_keys, _keys_flags, "guard", "make, trust, revoke and list the keys that verdicts are signed with"),
    "gate": Command(
        _gate,
        _gate_flags,
        "mlflow",
        "what the gate would answer, where no plugin can be installed: exit 0 admitted, 1 refused, 3 unknown",
    ),
    "revoke": Command(_revoke, _revoke_flags, "mlflow", "take a verdict back, signed"),
    "pull": Command(
        _pull,
        _pull_flags,
        "mlflow",
        "fetch a registered model for the service, verified: exit 0 it is current, 1 refused and the old one stays",
    ),
    "audit": Command(_audit, _audit_flags, "mlflow", "check the gate's ledger, and the registry against it"),
}
