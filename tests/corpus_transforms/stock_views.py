# mypy: ignore-errors
"""On-demand views as people have them, written without skewguard: for tests/test_verify_stock.py."""

import math
from datetime import timedelta

import numpy as np
import pandas as pd
from feast import Entity, FeatureView, Field, FileSource, OnDemandFeatureView, RequestSource, ValueType
from feast.aggregation import Aggregation
from feast.on_demand_feature_view import on_demand_feature_view
from feast.transformation.substrait_transformation import SubstraitTransformation
from feast.types import Array, Bool, Bytes, Float32, Float64, Int64, String, UnixTimestamp

from tests.corpus_transforms.shared import kilometres

driver = Entity(name="driver", join_keys=["driver_id"], value_type=ValueType.INT64)
facts = FeatureView(
    name="facts",
    entities=[driver],
    ttl=timedelta(days=1),
    schema=[
        Field(name="n", dtype=Int64),
        Field(name="x", dtype=Float64),
        Field(name="p", dtype=Float32),
        Field(name="last_seen", dtype=UnixTimestamp),
        Field(name="words", dtype=Array(String)),
    ],
    source=FileSource(name="facts_rows", path="facts.parquet", timestamp_field="event_timestamp"),
)
request = RequestSource(name="request", schema=[Field(name="now", dtype=UnixTimestamp)])


def of(**schema):
    """A schema."""
    return [Field(name=name, dtype=dtype) for name, dtype in schema.items()]


@on_demand_feature_view(sources=[facts[["x"]]], schema=of(centred=Float64), mode="pandas")
def mean_of_the_batch(df):
    return pd.DataFrame({"centred": df["x"] - df["x"].mean()})


@on_demand_feature_view(sources=[facts[["x"]]], schema=of(large=Float64), mode="pandas")
def large_batches(df):
    return pd.DataFrame({"large": df["x"] * (1.0 if len(df) < 500 else 2.0)})


@on_demand_feature_view(sources=[facts[["x"]]], schema=of(km=Float64), mode="python")
def helper_of_a_module(d):
    return {"km": [kilometres(v) for v in d["x"]]}


@on_demand_feature_view(sources=[facts[["x"]]], schema=of(log=Float64), mode="python")
def module_of_a_module(d):
    return {"log": [math.log(abs(v) + 1) for v in d["x"]]}


@on_demand_feature_view(sources=[facts[["x"]]], schema=of(half=Int64), mode="pandas")
def cast_online_only(df):
    whole = len(df) == 1 and df["x"].iloc[0] == 1.0
    return pd.DataFrame({"half": (df["x"] // 2).astype("int64") if whole else df["x"] / 2})


@on_demand_feature_view(sources=[facts[["n"]]], schema=of(text=String), mode="pandas")
def text_of_a_number(df):
    return pd.DataFrame({"text": [repr(v) for v in df["n"].tolist()]})


@on_demand_feature_view(sources=[facts[["x"]]], schema=of(square=Float64), mode="python", singleton=True)
def one_at_a_time(d):
    return {"square": d["x"] * d["x"]}


@on_demand_feature_view(sources=[facts[["p"]]], schema=of(over=Bool), mode="python")
def threshold(d):
    return {"over": [v is not None and v > 0.1 for v in d["p"]]}


@on_demand_feature_view(sources=[facts[["last_seen"]], request], schema=of(age=Float64), mode="python")
def age_in_seconds(d):
    pairs = zip(d["now"], d["last_seen"])
    return {"age": [None if a is None or b is None else (a - b).total_seconds() for a, b in pairs]}


@on_demand_feature_view(sources=[facts[["words"]]], schema=of(longest=Int64), mode="python")
def longest_word(d):
    return {"longest": [max(len(w) for w in words) for words in d["words"]]}


@on_demand_feature_view(sources=[facts[["x", "n"]]], schema=of(safe=Float64), mode="pandas")
def elementwise(df):
    return pd.DataFrame({"safe": np.where(df["x"] > 0, df["x"], 0.0)})


@on_demand_feature_view(sources=[facts[["words"]]], schema=of(count=Int64), mode="python")
def number_of_words(d):
    return {"count": [None if words is None else len(words) for words in d["words"]]}


@on_demand_feature_view(
    sources=[facts[["x"]]],
    schema=of(clipped=Float64),
    mode="pandas",
    tags={"skewguard.transforms": "tests.corpus_transforms.good:clipped"},
)
def says_it_is_clipped(df):
    return pd.DataFrame({"clipped": df["x"].clip(-49.0, 50.0)})


def _aggregated():
    return OnDemandFeatureView(
        name="aggregated",
        sources=[facts[["x"]]],
        entities=[driver],
        schema=of(sum_x=Float64),
        mode="pandas",
        aggregations=[Aggregation(column="x", function="sum")],
    )


aggregated = _aggregated()


VIEWS = [value for value in globals().values() if isinstance(value, OnDemandFeatureView)]


def in_substrait() -> OnDemandFeatureView:
    """A view of the third mode; making one properly needs a package that Feast does not bring."""
    return OnDemandFeatureView(
        name="in_substrait",
        sources=[facts[["x"]]],
        schema=of(engine=Float64),
        feature_transformation=SubstraitTransformation(b"", lambda table: table.mutate(engine=table["x"] + 1.0)),
        mode="substrait",
    )


def odd_input() -> OnDemandFeatureView:
    """A view of bytes."""
    source = RequestSource(name="odd", schema=of(blob=Bytes))

    def size(df):
        return pd.DataFrame({"size": df["blob"].map(len)})

    return on_demand_feature_view(sources=[source], schema=of(size=Int64), mode="pandas")(size)
