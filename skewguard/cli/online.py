"""`reconcile` and `heal`: the online store against the sources, key by key."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from skewguard.cli.command import FAIL, PASS, UNKNOWN, Command
from skewguard.workflows.project import Project

if TYPE_CHECKING:
    from skewguard.definitions import Bundle
    from skewguard.offline import OfflineStore
    from skewguard.online.store import KeptStore
    from skewguard.workflows.anti_entropy import Reconciled


def _reconcile_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--bundle")
    parser.add_argument("--store", help="sqlite:PATH or redis://HOST:PORT")
    parser.add_argument("--view", action="append", metavar="NAME", help="only this view; may be repeated")
    parser.add_argument("--limit", type=int, default=1000, metavar="N", help="name so many keys of a view (1000)")


def _heal_flags(parser: argparse.ArgumentParser) -> None:
    _reconcile_flags(parser)
    parser.add_argument("--dry-run", action="store_true", help="say what deviates, and write nothing")
    parser.add_argument("--take-away", action="store_true", help="delete what the sources do not have, too")


@contextmanager
def _opened(project: Project) -> Iterator[tuple[Bundle, OfflineStore, KeptStore]]:
    from skewguard.definitions import load_bundle
    from skewguard.offline import OfflineStore
    from skewguard.online import open_store

    bundle = load_bundle(project.require("bundle"))
    store = open_store(project.require("store"))
    try:
        with OfflineStore(bundle.views) as offline:
            yield bundle, offline, store
    finally:
        store.close()


def _reconcile(arguments: argparse.Namespace, project: Project) -> int:
    from skewguard.workflows.anti_entropy import reconcile

    with _opened(project) as (bundle, offline, store):
        found = reconcile(bundle, offline, store, views=arguments.view, limit=arguments.limit)
    return _told(arguments, bundle, found)


def _heal(arguments: argparse.Namespace, project: Project) -> int:
    from skewguard.workflows.heal import heal

    if arguments.dry_run:
        return _reconcile(arguments, project)
    with _opened(project) as (bundle, offline, store):
        healed = heal(
            bundle, offline, store, views=arguments.view, limit=arguments.limit, take_away=arguments.take_away
        )
    did = {"written": healed.written, "deleted": healed.deleted, "left": healed.left}
    _told(arguments, bundle, healed.found, did)
    if not all(one.examined for one in healed.found):
        return UNKNOWN
    return FAIL if healed.left else PASS


def _told(
    arguments: argparse.Namespace, bundle: Bundle, found: Sequence[Reconciled], did: dict[str, int] | None = None
) -> int:
    if arguments.json:
        print(json.dumps({"views": [_plain(bundle, one) for one in found], **(did or {})}, indent=1))
    else:
        for one in found:
            _show(bundle, one)
        if did is not None:
            print(", ".join(f"{name} {rows:,}" for name, rows in did.items()))
    if any(one.deviating for one in found):
        return FAIL
    return PASS if all(one.examined for one in found) else UNKNOWN


def _names(bundle: Bundle, view: str) -> list[str]:
    return next([key.column for key in one.keys] for one in bundle.views if one.name == view)


def _plain(bundle: Bundle, one: Reconciled) -> dict[str, Any]:
    from skewguard.values import instant
    from skewguard.workflows.anti_entropy import event_of

    names = _names(bundle, one.view)
    named = [
        {
            "deviates": str(each.kind),
            "keys": dict(zip(names, each.values, strict=True)),
            "store_event": event_of(each.online) if each.online else None,
            "source_event": event_of(each.offline) if each.offline else None,
        }
        for each in one.named
    ]
    counts = {
        name: getattr(one, name) for name in ("keys", "stored", "missing", "extra", "stale", "different", "moving")
    }
    return {"view": one.view, "known_by": instant(one.known_by) if one.examined else None, **counts, "named": named}


def _show(bundle: Bundle, one: Reconciled) -> None:
    from skewguard.workflows.anti_entropy import describe

    if not one.examined:
        print(f"{one.view}: was never written to this store; run `skewguard materialize`")
        return
    kinds = ("missing", "extra", "stale", "different")
    counts = ", ".join(f"{n:,} {kind}" for kind in kinds if (n := getattr(one, kind)))
    moving = f"; {one.moving:,} on their way" if one.moving else ""
    print(f"{one.view}: {one.deviating:,} of {one.keys:,} keys deviate{': ' + counts if counts else ''}{moving}")
    for each in one.named:
        print(f"  {describe(each, _names(bundle, one.view))}")
    if one.deviating > len(one.named):
        print(f"  and {one.deviating - len(one.named):,} more (--limit)")


COMMANDS = {
    "reconcile": Command(
        _reconcile,
        _reconcile_flags,
        "guard",
        "the online store against the sources, key by key (anti-entropy): exit 0 equal, 1 not, 3 never written",
    ),
    "heal": Command(_heal, _heal_flags, "guard", "publish again just the rows that deviate"),
}
