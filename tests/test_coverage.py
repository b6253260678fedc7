"""Evidence that another model's rows give: for the features that are the same, and for nothing else."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from skewguard.cli import main
from skewguard.contract import Contract
from skewguard.definitions import Bundle, Derived, cut, fingerprints, shared
from skewguard.errors import Refused, StoreUnavailable
from skewguard.gate import may_promote
from skewguard.gate.keys import SigningKey, load_trust, trust_key
from skewguard.gate.record import LONGEST, read_record, sign_verdict
from skewguard.model import load_model
from skewguard.online import Lookup, open_store
from skewguard.policy import Policy
from skewguard.replay import Age, Bearing, Pairs
from skewguard.report import to_html, to_text
from skewguard.servinglog import ServingLog, read_log
from skewguard.servinglog.compaction import compact
from skewguard.servinglog.definitions import FOLDER, keep, kept
from skewguard.servinglog.segment import RESERVED
from skewguard.snapshot import build_snapshot
from skewguard.transforms import fingerprint, load
from skewguard.values import Column, Dtype, Status
from skewguard.verdict import Coverage, Covered, Ruling, Subject, Verdict, judge, scope_of
from skewguard.workflows import guard as guard_module
from skewguard.workflows.probe import asks, probe
from tests.loop import (
    HOUR,
    POLICY,
    SERVICE,
    TODAY,
    Fault,
    Loop,
    NoStore,
    Store,
    asks_between,
    at,
    changed,
    save_model,
    us,
)

MIXED = replace(POLICY, minimum_own_rows=20, evidence=("shadow", "production", "probe"))
NEW = "derived__gust_ratio_of_build_b"
Change = Callable[[Bundle], Bundle]


# -- candidates -------------------------------------------------------------------------------------------------------


def _view(bundle: Bundle, name: str, **changes: Any) -> Bundle:
    return replace(bundle, views=tuple(replace(v, **changes) if v.name == name else v for v in bundle.views))


def _feature(bundle: Bundle, view: str, feature: str, **changes: Any) -> Bundle:
    old = bundle.view(view)
    features = tuple(replace(one, **changes) if one.name == feature else one for one in old.features)
    new = changes.get("name", feature)
    names = {f"{view}__{feature}": f"{view}__{new}"}
    made = tuple(replace(d, inputs=tuple(names.get(i, i) for i in d.inputs)) for d in bundle.derived)
    outputs = tuple(names.get(one, one) for one in bundle.outputs)
    return replace(_view(bundle, view, features=features), derived=made, outputs=outputs)


def _derived(bundle: Bundle, name: str, **changes: Any) -> Bundle:
    return replace(bundle, derived=tuple(replace(d, **changes) if d.name == name else d for d in bundle.derived))


def more(bundle: Bundle) -> Bundle:
    """One derived feature more."""
    function = f"tests.loop_features:{NEW.removeprefix('derived__')}"
    new = Derived(
        NEW.removeprefix("derived__"), "derived", function, ("weather__gust", "weather__wind"), Dtype.FLOAT64,
        Contract(), fingerprint(load(function)),
    )  # fmt: skip
    return replace(bundle, derived=(*bundle.derived, new), outputs=(*bundle.outputs, NEW))


def fewer(bundle: Bundle) -> Bundle:
    """Without the plane's seats."""
    plane = bundle.view("plane")
    rest = tuple(one for one in plane.features if one.name != "seats")
    return replace(_view(bundle, "plane", features=rest), outputs=tuple(o for o in bundle.outputs if "seats" not in o))


def other_body(bundle: Bundle) -> Bundle:
    """The gust's ratio by another body."""
    function = "tests.loop_features:gust_ratio_of_build_b"
    return _derived(bundle, "gust_ratio", function=function, fingerprint=fingerprint(load(function)))


def swapped(bundle: Bundle) -> Bundle:
    """The same body on its inputs in another order."""
    return _derived(bundle, "gust_ratio", inputs=("weather__wind", "weather__gust"))


CHANGES: dict[str, tuple[Change, set[str]]] = {
    "nothing": (lambda bundle: bundle, set()),
    "contracts": (lambda bundle: _feature(bundle, "weather", "wind", contract=Contract(unit="m/s")), set()),
    "patience": (lambda bundle: _view(bundle, "weather", max_lag_us=HOUR), set()),
    "order": (lambda bundle: replace(bundle, outputs=bundle.outputs[::-1]), set()),
    "a feature more": (more, {NEW}),
    "a feature less": (fewer, set()),
    "a body": (other_body, {"derived__gust_ratio"}),
    "inputs in another order": (swapped, {"derived__gust_ratio"}),
    "a stored dtype": (
        lambda bundle: _feature(bundle, "plane", "seats", dtype=Dtype.FLOAT64),
        {"plane__seats"},
    ),
    "a dtype that others rest on": (
        lambda bundle: _feature(bundle, "weather", "wind", dtype=Dtype.FLOAT32),
        {"weather__wind", "derived__gust_ratio"},
    ),
    "a derived dtype": (lambda bundle: _derived(bundle, "gust_ratio", dtype=Dtype.FLOAT32), {"derived__gust_ratio"}),
    "a TTL": (
        lambda bundle: _view(bundle, "weather", ttl_us=2 * HOUR),
        {"weather__gust", "weather__wind", "derived__gust_ratio"},
    ),
    "a lag of availability": (
        lambda bundle: _view(bundle, "plane", availability_lag_us=5),
        {"plane__maker", "plane__seats", "plane__thrust", "derived__maker_code"},
    ),
    "a column": (
        lambda bundle: _feature(bundle, "weather", "gust", column="wind"),
        {"weather__gust", "derived__gust_ratio"},
    ),
    "a name": (
        lambda bundle: _feature(bundle, "plane", "maker", name="brand"),
        {"plane__brand", "derived__maker_code"},
    ),
    "a request field's dtype": (
        lambda bundle: replace(
            bundle, request=tuple(replace(r, dtype=Dtype.INT32) if r.name == "stops" else r for r in bundle.request)
        ),
        {"derived__per_stop"},
    ),
    "the source's created time": (
        lambda bundle: _view(bundle, "plane", source=replace(bundle.view("plane").source, created=None)),
        {"plane__maker", "plane__seats", "plane__thrust", "derived__maker_code"},
    ),
    "a key": (
        lambda bundle: _view(
            bundle, "weather", keys=tuple(replace(k, ask="destination") for k in bundle.view("weather").keys)
        ),
        {"weather__gust", "weather__wind", "derived__gust_ratio"},
    ),
    "the project": (lambda bundle: replace(bundle, project="other"), {
        "plane__maker", "plane__seats", "plane__thrust", "weather__gust", "weather__wind", "derived__gust_ratio",
        "derived__maker_code",
    }),
    "where the sources lie": (lambda bundle: bundle.with_sources("elsewhere"), set()),
}  # fmt: skip


def candidate(loop: Loop, root: Path, change: Change) -> Loop:
    """The world of a model that was trained with changed definitions."""
    bundle = change(loop.bundle)
    before = asks_between(TODAY - timedelta(days=3), timedelta(days=3), 480)
    snapshot = build_snapshot(bundle, before, root / "snapshot", labels=["late"], id_column="id")
    folder = save_model(root / "model", snapshot, *snapshot.to_numpy("late"))
    return replace(loop, root=root, bundle=bundle, snapshot=snapshot, model_folder=folder, model=load_model(folder))


def judged(one: Loop, log: Path, policy: Policy = MIXED, **more: Any) -> Verdict:
    """The verdict on a candidate."""
    return one.guard(log, policy, model_digest=one.model.digest, **more).verdict


def beside(log: Path, other: Path) -> Path:
    """`log` with all that lies in another log of the service."""
    shutil.copytree(other, log, dirs_exist_ok=True)
    return log


@pytest.fixture(scope="module")
def production(loop: Loop, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the model of today answered, as a service logs it: with its definitions beside it."""
    log = loop.play(tmp_path_factory.mktemp("production"), evidence="production")
    keep(log / SERVICE, loop.bundle)
    return log


@pytest.fixture(scope="module")
def newer(loop: Loop, tmp_path_factory: pytest.TempPathFactory) -> Loop:
    """A candidate with one feature more."""
    return candidate(loop, tmp_path_factory.mktemp("newer"), more)


@pytest.fixture
def log(production: Path, tmp_path: Path) -> Path:
    """A copy of the production log that a test may add to."""
    return beside(tmp_path / "log", production)


def shadowed(one: Loop, log: Path, root: Path, rows: int, *, start: int = 0) -> Path:
    """The candidate's own answers, added to a log."""
    return beside(log, one.play(root, asks=one.asks.slice(start, rows)))


def evidence(verdict: Verdict) -> dict[str, Covered]:
    """The evidence for each feature."""
    return {one.name: one for one in verdict.coverage.features}


# -- what is the same feature -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("what", CHANGES)
def test_a_feature_is_another_one_where_anything_that_makes_its_value_is(loop: Loop, what: str) -> None:
    """Definition, transform and dtype, transitively; not contracts, order, places, or features beside it."""
    change, others = CHANGES[what]
    new = change(loop.bundle)
    assert set(new.dtypes) - set(shared(new, loop.bundle)) == others


def test_two_bundles_share_what_a_naive_comparison_says(loop: Loop) -> None:
    """Brute force: every pair of changed bundles, compared by writing out each feature as nested tuples."""
    bundles = [change(loop.bundle) for change, _ in CHANGES.values()]
    for one in bundles:
        for other in bundles:
            mine, theirs = _written_out(one), _written_out(other)
            assert set(shared(one, other)) == {name for name in mine if theirs.get(name) == mine[name]}


def _written_out(bundle: Bundle) -> dict[str, object]:
    told: dict[str, object] = {field.name: (field.name, field.dtype) for field in bundle.request}
    for view in bundle.views:
        for one in view.features:
            keys = [(key.column, key.ask, key.dtype) for key in view.keys]
            times = (view.ttl_us, view.availability_lag_us, view.source.timestamp, view.source.created)
            told[view.full_name(one.name)] = (bundle.project, view.name, one.name, one.column, one.dtype, keys, times)
    for spec in bundle.derived:
        told[spec.full_name] = (spec.full_name, spec.dtype, spec.fingerprint, [told[name] for name in spec.inputs])
    return {name: told[name] for name in bundle.dtypes}


def test_a_fitted_value_belongs_to_its_feature(loop: Loop) -> None:
    """The same transform fitted to other values is another feature, and no other feature is."""
    from skewguard.definitions import Fitted

    usual = Fitted(
        "usual", "tests.loop_features:wind_by_maker", ("plane__maker", "weather__wind"), {"table": [["A", 1.0]]}
    )
    one = _derived(loop.bundle, "gust_ratio", fitted=(usual,))
    other = _derived(loop.bundle, "gust_ratio", fitted=(replace(usual, value={"table": [["A", 2.0]]}),))
    assert set(one.dtypes) - set(shared(one, other)) == {"derived__gust_ratio"}


def test_a_cut_bundle_holds_the_features_and_what_they_are_computed_from(loop: Loop) -> None:
    """No view, request field or transform more; and each feature is what it was."""
    small = cut(loop.bundle, ["derived__gust_ratio"])
    assert list(small.dtypes) == ["weather__gust", "weather__wind", "derived__gust_ratio"]
    assert (list(small.keys), small.request) == (["origin"], ())
    assert fingerprints(small).items() <= fingerprints(loop.bundle).items()


# -- what counts ------------------------------------------------------------------------------------------------------


def test_a_new_feature_is_uncovered_until_the_candidate_shows_it(newer: Loop, log: Path, tmp_path: Path) -> None:
    """Production rows of the old bundle cover the rest; a shadow of the candidate's own covers the new feature."""
    assert judged(newer, log).reasons[0].startswith("no logged row was answered by the model with digest")
    verdict = judged(newer, shadowed(newer, log, tmp_path / "few", 10))
    assert verdict.ruling is Ruling.UNKNOWN
    assert verdict.reasons[0].startswith("10 rows were answered by the candidate itself, the policy wants 20; serve it")
    assert verdict.reasons[1] == (
        f"1 of 9 features have too little evidence: {NEW} (10 rows); the policy wants 100 rows served from the same "
        "definition, or 20 of a shadow or probe; serve it as a shadow (`skewguard serve --evidence shadow --model "
        "DIR`) or run `skewguard probe --model DIR --rows 20`"
    )
    assert verdict.coverage.scope.uncovered.first == (NEW,)
    verdict = judged(newer, shadowed(newer, log, tmp_path / "enough", 25, start=10))
    assert verdict.ruling is Ruling.PASS, verdict.reasons
    assert (verdict.coverage.rows, verdict.coverage.others) == (35, 180)
    found = evidence(verdict)
    assert found[NEW] == Covered(NEW, (("shadow", 35),), ())
    assert {one.others for name, one in found.items() if name != NEW} == {(("production", 180),)}
    assert verdict.subject.evidence == "production, shadow"
    assert "180 rows of other models bear on the features they share" in verdict.reasons[0]


def test_without_another_models_rows_the_minimum_is_the_candidates_to_bring(newer: Loop, tmp_path: Path) -> None:
    """A few rows of a shadow alone are UNKNOWN, as they always were."""
    verdict = judged(newer, shadowed(newer, tmp_path / "log", tmp_path / "own", 25))
    assert (verdict.ruling, verdict.reasons[0]) == (Ruling.UNKNOWN, "25 rows were replayed, the policy wants 100")


@pytest.mark.parametrize("what", ["a body", "a stored dtype", "a TTL", "a name"])
def test_a_changed_feature_is_uncovered_and_named(loop: Loop, log: Path, tmp_path: Path, what: str) -> None:
    """Rows of the old definition are no evidence for the new one."""
    change, others = CHANGES[what]
    new = candidate(loop, tmp_path / "new", change)
    verdict = judged(new, shadowed(new, log, tmp_path / "own", 10))
    assert verdict.ruling is Ruling.UNKNOWN
    assert set(verdict.coverage.scope.uncovered.first) == others
    found = evidence(verdict)
    assert {name for name, one in found.items() if not one.others} == others
    assert {one.rows for name, one in found.items() if name not in others} == {190}


def test_a_log_of_several_bundles_counts_for_each_feature_what_shares_it(
    loop: Loop, newer: Loop, log: Path, tmp_path: Path
) -> None:
    """Two production bundles at once: what both have the same is counted from both, the changed one from one."""
    older = candidate(loop, tmp_path / "older", CHANGES["a body"][0])
    older.play(tmp_path / "two", asks=loop.asks.slice(0, 60), evidence="production")
    keep(tmp_path / "two" / "log" / SERVICE, older.bundle)
    verdict = judged(newer, shadowed(newer, beside(log, tmp_path / "two" / "log"), tmp_path / "own", 25))
    assert verdict.ruling is Ruling.PASS, verdict.reasons
    found = evidence(verdict)
    assert found["derived__gust_ratio"].others == (("production", 180),)
    assert found["weather__wind"].others == (("production", 240),)
    assert verdict.coverage.others == 240


def test_a_model_trained_anew_is_covered_by_what_production_answers(loop: Loop, log: Path, tmp_path: Path) -> None:
    """The same definitions, another model: its own few rows show that it answers, the others what it is given."""
    again = candidate(loop, tmp_path / "again", lambda bundle: bundle)
    assert again.bundle.digest == loop.bundle.digest
    other = replace(again, model=replace(again.model, digest="e" * 64))
    verdict = judged(other, shadowed(other, log, tmp_path / "own", 25))
    assert verdict.ruling is Ruling.PASS, verdict.reasons
    assert set(evidence(verdict)["derived__per_stop"].by_kind) == {"production", "shadow"}


def test_what_another_model_was_served_wrongly_fails_the_features_it_shares(
    loop: Loop, newer: Loop, tmp_path: Path
) -> None:
    """Skew in a shared feature is the candidate's as well; in one that it defines otherwise it is nobody's."""
    wind = changed(loop.bundle.view("weather"), "wind", lambda column: replace(column, values=column.values * 1.609))
    fault = Fault(store=lambda store, _: Store(store, read=wind))
    log = loop.play(tmp_path / "production", fault, evidence="production")
    keep(log / SERVICE, loop.bundle)
    verdict = judged(newer, shadowed(newer, log, tmp_path / "own", 25))
    assert verdict.ruling is Ruling.FAIL
    assert {one.feature for one in verdict.findings} == {"weather__wind"}
    assert "rows that other models answered under definitions" in verdict.findings[0].message
    assert "x 1.609" in verdict.findings[0].cause
    slower = candidate(loop, tmp_path / "slower", CHANGES["a TTL"][0])
    verdict = judged(slower, shadowed(slower, log, tmp_path / "slow", 25))
    assert (verdict.ruling, verdict.findings) == (Ruling.PASS, ())


def test_what_another_model_predicted_is_no_evidence(loop: Loop, newer: Loop, log: Path, tmp_path: Path) -> None:
    """With the model at hand, only its own predictions are computed again; the others' are not even looked at."""

    def odd(batch: pa.RecordBatch) -> pa.RecordBatch:
        at = batch.schema.get_field_index("prediction")
        return batch.set_column(at, "prediction", pa.array(np.full(batch.num_rows, 7.5)))

    loop.play(tmp_path / "odd", Fault(log=odd), evidence="production")
    beside(log, tmp_path / "odd" / "log")
    verdict = judged(newer, shadowed(newer, log, tmp_path / "own", 25), model=newer.model)
    assert verdict.ruling is Ruling.PASS, verdict.reasons


def test_rows_of_a_kind_that_the_policy_does_not_accept_are_passed_over(newer: Loop, log: Path, tmp_path: Path) -> None:
    """Batch scores, and whatever else the policy does not name, cover nothing."""
    policy = replace(MIXED, evidence=("shadow",))
    verdict = judged(newer, shadowed(newer, log, tmp_path / "own", 25), policy)
    assert (verdict.ruling, verdict.coverage.others) == (Ruling.UNKNOWN, 0)


def test_without_a_models_digest_the_candidate_is_whoever_was_trained_on_the_snapshot(
    newer: Loop, log: Path, tmp_path: Path
) -> None:
    """Over a change of models in production, the old one's rows are others' rows, and no reason to give up."""
    shadowed(newer, log, tmp_path / "own", 25)
    verdict = newer.guard(log, MIXED).verdict
    assert verdict.ruling is Ruling.PASS, verdict.reasons
    assert (verdict.coverage.rows, verdict.coverage.others) == (25, 180)
    assert verdict.subject.model_digest == newer.model.digest


def test_what_the_candidate_itself_answered_under_other_definitions_is_a_doubt_about_all(
    loop: Loop, newer: Loop, log: Path, tmp_path: Path
) -> None:
    """A model that is served the features of another bundle is skewed, however many features are the same."""
    shadowed(newer, log, tmp_path / "own", 25)
    odd = loop.play(tmp_path / "odd", asks=loop.asks.slice(25, 5), model_digest=newer.model.digest)
    verdict = judged(newer, beside(log, odd))
    assert verdict.ruling is Ruling.UNKNOWN
    assert "5 of 30 logged rows were served under other definitions" in verdict.reasons[0]


def test_hashed_keys_of_other_models_count_with_the_secret_alone(
    loop: Loop, newer: Loop, production: Path, tmp_path: Path
) -> None:
    """Without it the verdict says what is missing."""
    log, secret = tmp_path / "log", b"s" * 16
    (header,) = {tuple(sorted(one.header.items())) for one in read_log(production, SERVICE).segments[:1]}
    own = {name: text for name, text in header if name not in RESERVED}
    flat = read_log(production, SERVICE).segments[0].schema
    with ServingLog(log, SERVICE, flat, own, bundle=loop.bundle, pii=["tail"], secret=secret) as hashed:
        for _, batch in read_log(production, SERVICE).batches():
            hashed.append(batch)
    shadowed(newer, log, tmp_path / "own", 25)
    blind = judged(newer, log)
    assert (blind.ruling, blind.coverage.others) == (Ruling.UNKNOWN, 0)
    assert any("the keys of tail are hashed in the log: give the secret" in reason for reason in blind.reasons)
    verdict = judged(newer, log, secret=secret)
    assert verdict.ruling is Ruling.PASS, verdict.reasons
    assert verdict.coverage.others == 180


# -- where the definitions lie ----------------------------------------------------------------------------------------


def test_definitions_that_are_missing_or_were_edited_cover_nothing(
    loop: Loop, newer: Loop, log: Path, tmp_path: Path
) -> None:
    """The verdict says which rows do not count, and why."""
    shadowed(newer, log, tmp_path / "own", 25)
    file = log / SERVICE / FOLDER / f"{loop.bundle.digest}.json"
    whole = file.read_text()
    for spoil in (lambda: file.write_text(whole.replace("gust_ratio", "gust_ratix")), file.unlink):
        spoil()
        verdict = judged(newer, log)
        assert verdict.ruling is Ruling.UNKNOWN
        told = f"180 rows of other models were served under definitions {loop.bundle.digest[:12]}, which do not lie"
        assert any(reason.startswith(told) for reason in verdict.reasons), verdict.reasons


def test_a_log_keeps_the_definitions_that_it_is_opened_with(loop: Loop, tmp_path: Path) -> None:
    """Once, whatever is opened later; under the digest, which is checked when they are read."""
    for _ in range(2):
        ServingLog(tmp_path, bundle=loop.bundle).close()
    (file,) = (tmp_path / SERVICE / FOLDER).iterdir()
    before = file.stat().st_mtime_ns
    ServingLog(tmp_path, bundle=loop.bundle).close()
    assert file.stat().st_mtime_ns == before
    assert kept(tmp_path, SERVICE, loop.bundle.digest) == loop.bundle
    assert kept(tmp_path, SERVICE, "0" * 64) is None
    assert kept(tmp_path, SERVICE, "../../secret") is None
    file.rename(file.with_name("0" * 64 + ".json"))
    assert kept(tmp_path, SERVICE, "0" * 64) is None


def test_an_archive_elsewhere_has_the_definitions_too(loop: Loop, newer: Loop, log: Path, tmp_path: Path) -> None:
    """Rows that were compacted to another place are evidence there as well."""
    compact(log, SERVICE, to=tmp_path / "archive")
    assert kept(tmp_path / "archive", SERVICE, loop.bundle.digest) == loop.bundle
    verdict = judged(newer, shadowed(newer, log, tmp_path / "own", 25))
    assert (verdict.ruling, verdict.coverage.others) == (Ruling.PASS, 180)


def test_a_log_of_one_bundle_looks_at_nothing_else(
    loop: Loop, production: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the candidate's own rows are enough, nobody's else are read."""

    def never(*_: object) -> None:
        raise AssertionError("looked at others")

    monkeypatch.setattr(guard_module, "look_at_others", never)
    verdict = judged(loop, production)
    assert (verdict.ruling, verdict.coverage.others) == (Ruling.PASS, 0)
    assert {one.own for one in verdict.coverage.features} == {(("production", 180),)}


# -- rows that bear on a feature --------------------------------------------------------------------------------------


def test_rows_are_counted_as_one_would_by_hand(loop: Loop) -> None:
    """Brute force: a row bears on a feature that was answered and whose source row can be witnessed."""
    pairs = loop.pairs()
    n = len(pairs)
    random = np.random.default_rng(3)
    age = {view: random.choice(np.array(list(Age), dtype=np.uint8), n) for view in pairs.age}
    rewritten = {"plane": random.random(n) < 0.3}
    labels = dict(pairs.labels) | {"evidence": random.choice(np.array(["shadow", "probe"], dtype=object), n)}
    seats = pairs.served.views["plane"].features["seats"]
    status = random.choice(np.array([0, 1, Status.ERROR, Status.NOT_REQUESTED], dtype=np.uint8), n)
    column = Column.build(seats.dtype, seats.values, status)
    plane = replace(pairs.served.views["plane"], features={**pairs.served.views["plane"].features, "seats": column})
    served = replace(pairs.served, views={**pairs.served.views, "plane": plane})
    odd = replace(pairs, age=age, rewritten=rewritten, labels=labels, served=served)
    bearing = Bearing()
    for part in (odd.take(np.arange(0, 70)), odd.take(np.arange(70, n))):
        bearing.add(part)
    for name in pairs.bundle.dtypes:
        expected: dict[str, int] = {}
        for row in range(n):
            if _bears(odd, name, row):
                kind = labels["evidence"][row]
                expected[kind] = expected.get(kind, 0) + 1
        assert bearing.rows(name) == expected, name


def _bears(pairs: Pairs, name: str, row: int) -> bool:
    view = pairs.bundle.view_of.get(name)
    if view is not None:
        if pairs.age[view][row] in (Age.UNVERIFIABLE, Age.UNANSWERED):
            return False
        if view in pairs.rewritten and pairs.rewritten[view][row]:
            return False
    return pairs.served.feature(pairs.bundle, name).status[row] not in (Status.ERROR, Status.NOT_REQUESTED)


def test_of_a_feature_that_never_had_a_value_the_absence_is_compared_and_told(loop: Loop) -> None:
    """A day without gusts is healthy, and nobody has seen a gust."""
    pairs = loop.pairs()

    def without(side: Any) -> Any:
        plane = side.views["plane"]
        gone = Column.absent(Dtype.INT64, len(pairs), Status.NULL)
        return replace(side, views={**side.views, "plane": replace(plane, features={**plane.features, "seats": gone})})

    bearing = Bearing()
    bearing.add(replace(pairs, served=without(pairs.served), truth=without(pairs.truth)))
    assert bearing.rows("plane__seats") == bearing.rows("plane__thrust") != {}
    assert bearing.absent == ("plane__seats",)


# -- what is signed, and what follows from it -------------------------------------------------------------------------


def _verdict(coverage: Coverage, policy: Policy = MIXED) -> Verdict:
    subject = Subject("delay-model", "m-" + "1" * 32, "d" * 64, evidence="production, shadow")
    return judge((), coverage, subject, policy, now=at(0))


def test_a_signed_record_says_how_many_features_lack_evidence_and_which(tmp_path: Path) -> None:
    """Within a tag's length, however many they are: the number, the first names, a digest of every feature's rows."""
    features = tuple(Covered(f"view__{'x' * 90}_{i}", (("shadow", i),)) for i in range(500))
    verdict = _verdict(Coverage(rows=500, equal=500, features=features))
    key = SigningKey.new()
    text = sign_verdict(verdict, key)
    assert len(text) <= LONGEST
    trust_key(tmp_path / "trusted.json", key.save(tmp_path / "key.pem"), "tests")
    signed = read_record(text, load_trust(tmp_path / "trusted.json")).verdict
    assert signed is not None
    scope = signed.coverage.scope
    assert (scope.features, scope.uncovered.count, signed.coverage.features) == (500, 20, ())
    assert scope.uncovered.first[:3] == tuple(one.name for one in features[:3])
    assert scope.digest == verdict.coverage.scope.digest
    other = replace(verdict.coverage, features=(*features[:-1], Covered(features[-1].name, (("shadow", 400),))))
    assert scope_of(other, MIXED).digest != scope.digest


def test_a_verdict_survives_json() -> None:
    """Per feature and in sum; and one of an earlier version, which has neither, is read."""
    features = (Covered("a__b", (("shadow", 30),), (("production", 200),)),)
    verdict = _verdict(Coverage(rows=30, equal=30, others=200, features=features))
    assert Verdict.from_json(json.loads(json.dumps(verdict.to_json()))) == verdict
    old = verdict.to_json()
    for name in ("others", "features", "scope"):
        del old["coverage"][name]
    assert Verdict.from_json(old).coverage == Coverage(rows=30, equal=30)


def test_an_alias_asks_for_the_policys_kind_of_evidence_on_every_feature() -> None:
    """Shadow evidence on one feature registers, and sets an alias only where the policy says so."""
    features = (
        Covered("a__b", (("shadow", 30),), (("production", 200),)),
        Covered("a__new", (("shadow", 30),)),
    )
    coverage = Coverage(rows=30, equal=30, others=200, features=features)
    verdict = _verdict(coverage)
    assert verdict.ruling is Ruling.PASS
    with pytest.raises(Refused, match=r"no alias or stage: of 1 of its 2 features .* production evidence \(a__new\)"):
        may_promote(verdict, MIXED)
    generous = replace(MIXED, promotion=("production", "shadow"))
    may_promote(_verdict(coverage, generous), generous)
    served = Coverage(rows=30, equal=30, others=200, features=features[:1])
    may_promote(_verdict(served), MIXED)


def test_reports_say_which_features_lack_evidence() -> None:
    """In the terminal and on the page, in one line."""
    features = (Covered("a__b", (("shadow", 30),), (("production", 200),)), Covered("a__new", (("shadow", 3),)))
    verdict = _verdict(Coverage(rows=30, equal=30, others=200, features=features))
    for text in (to_text(verdict, width=400), to_html(verdict)):
        assert " features have enough evidence; not " in text
        assert "; 200 rows of other models looked at for features they share" in text
        assert "a.new" in text


# -- probe ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def store_url(newer: Loop, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A store as the candidate would find it, at noon."""
    url = f"sqlite:{tmp_path_factory.mktemp('store') / 'online.db'}"
    newer.materialize(url, at(12))
    return url


def test_a_probe_covers_what_nobody_has_served(newer: Loop, log: Path, store_url: str) -> None:
    """Edges first, then the training set's asks; answered as the service answers, and logged as a probe."""
    store = open_store(store_url)
    done = probe(newer.snapshot, Lookup(newer.bundle, store), newer.model, log, rows=40, as_of=us(at(12)))
    store.close()
    assert (done.rows, done.edges) == (40, 9)  # four of keys; the ends of three request fields, which share a row
    verdict = judged(newer, log, model=newer.model)
    assert verdict.ruling is Ruling.PASS, verdict.reasons
    assert evidence(verdict)[NEW].own == (("probe", 40),)
    assert verdict.subject.evidence == "probe, production"
    strict = judged(newer, log, replace(MIXED, evidence=("shadow", "production")))
    assert "the evidence is of kind 'probe', the policy accepts shadow, production" in strict.reasons


def test_a_probe_asks_for_nobody_and_for_the_extremes(newer: Loop) -> None:
    """Null and unknown keys, and the least and greatest of every number that callers bring."""
    spine, edges = asks(newer.snapshot, 30, 5)
    known = newer.snapshot.to_arrow(["q__distance", "e__tail"])
    first = {name: [column.value(row) for row in range(edges)] for name, column in spine.request.items()}
    assert {min(known["q__distance"].to_pylist()), max(known["q__distance"].to_pylist())} <= set(first["distance"])
    for key in ("tail", "origin"):
        values = [spine.keys[key].value(row) for row in range(edges)]
        assert None in values
        assert any(str(value).startswith("nobody") for value in values)
    assert set(spine.as_of.tolist()) == {5}
    assert len(set(spine.ids.tolist())) == 30
    assert len(asks(newer.snapshot, 1, 5)[0]) == 1


def test_a_probe_whose_store_stops_answering_leaves_nothing(newer: Loop, tmp_path: Path) -> None:
    """All of its answers are in the log, or none."""
    with pytest.raises(StoreUnavailable):
        probe(newer.snapshot, Lookup(newer.bundle, NoStore()), newer.model, tmp_path, rows=5, as_of=us(at(12)))
    assert not (tmp_path / SERVICE).exists()


def test_the_command_probes_and_says_so(
    newer: Loop, log: Path, store_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its rows are in the log, of that kind; a count that is none is refused."""
    flags = ["--model", str(newer.model_folder), "--snapshot", str(newer.snapshot.path), "--store", store_url]
    flags += ["--log", str(log), "--as-of", at(12).isoformat()]
    assert main(["probe", *flags, "--rows", "25", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["rows"] == 25
    own = [one for one in read_log(log, SERVICE).segments if one.header["evidence"] == "probe"]
    assert sum(one.rows for one in own) == 25
    assert main(["probe", *flags, "--rows", "0"]) == 2
    assert "--rows: expected 1 to" in capsys.readouterr().err
