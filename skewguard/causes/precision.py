"""A value lost digits on one side, or what does not fit a narrower type."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from skewguard.causes.evidence import Evidence, Explanation, Floats
from skewguard.values import Array, Dtype

_DIGITS = 7


def explain(evidence: Evidence) -> Iterator[Explanation]:
    """Served is the truth as a narrower type, truncated, or rounded to a number of decimals or digits."""
    numbers = evidence.numbers
    if numbers is None or evidence.served is None or evidence.truth is None:
        return
    exact = evidence.truth.values[numbers.at]
    got = evidence.served.values[numbers.at]
    with np.errstate(all="ignore"):
        forms: list[tuple[str, str, float, Array]] = [*_integers(exact, evidence.truth.dtype)]
        forms += narrowings(numbers.truth) if evidence.truth.dtype.is_float else _tens(exact)
        for kind, sentence, bits, values in forms:
            same = values == (got if values.dtype.kind == "i" else numbers.served)
            if same.sum() >= 3 and len(np.unique(got[same])) > 2:  # one or two constants are a default
                yield Explanation(kind, sentence, evidence.mask(numbers.at[same]), bits)


def narrowings(truth: Floats) -> Iterator[tuple[str, str, float, Floats]]:
    """(kind, sentence, bits, values) of all that a number may be narrowed to."""
    yield "float32", "served = truth as float32", 3.0, truth.astype(np.float32).astype(np.float64)
    yield (
        "float16",
        "served = truth as float16",
        4.0,
        np.clip(truth, -65504, 65504).astype(np.float16).astype(np.float64),
    )
    bits = (truth.astype(np.float32).view(np.uint32) & np.uint32(0xFFFF0000)).view(np.float32)
    yield "bfloat16", "served = truth as bfloat16", 5.0, bits.astype(np.float64)
    yield "truncated", "served = truth without its fraction", 3.0, np.trunc(truth)
    yield "floored", "served = the whole number below the truth", 4.0, np.floor(truth)
    yield "ceiled", "served = the whole number above the truth", 4.0, np.ceil(truth)
    for d in range(-3, 7):
        yield f"rounded_{d}", f"served = truth rounded to {d} decimals", 5.0 + abs(d), np.round(truth, d)
        if d > 0:
            cut = np.trunc(truth * 10.0**d) / 10.0**d
            yield f"truncated_{d}", f"served = truth cut after {d} decimals", 6.0 + d, cut
    exponent = np.floor(np.log10(np.abs(np.where(truth == 0, 1, truth))))
    for d in range(1, _DIGITS):
        scale = 10.0 ** (d - 1 - exponent)
        yield f"digits_{d}", f"served = truth rounded to {d} digits", 8.0 + d, np.round(truth * scale) / scale


def _tens(truth: Array) -> Iterator[tuple[str, str, float, Array]]:
    """Whole numbers, rounded to tens, hundreds or thousands."""
    for d in (1, 2, 3):
        values = np.round(truth.astype(np.int64), -d)
        yield f"rounded_{-d}", f"served = truth rounded to {10**d}s", 5.0 + d, values


def _integers(truth: Array, dtype: Dtype) -> Iterator[tuple[str, str, float, Array]]:
    """What becomes of whole numbers in a narrower type: wrapped, held at its end, or by way of a float."""
    if dtype not in (Dtype.INT64, Dtype.INT32):
        if not ((truth == np.trunc(truth)) & (np.abs(truth) < 2.0**62)).all():
            return
        truth = truth.astype(np.int64)
    wide = truth.astype(np.int64)
    yield (
        "float64",
        "served = truth by way of a float64, exact up to 2^53 only",
        4.0,
        wide.astype(np.float64).astype(np.int64),
    )
    single = wide.astype(np.float32).astype(np.float64).astype(np.int64)
    yield "float32", "served = truth by way of a float32, exact up to 2^24 only", 4.0, single
    for width in (32, 16, 8):
        for sign, name in (("i", "int"), ("u", "uint")):
            kind = np.dtype(f"{sign}{width // 8}")
            most = np.iinfo(kind)
            if not ((wide > most.max) | (wide < most.min)).any():
                continue
            yield "overflow", f"served = truth wrapped into {name}{width}", 6.0, wide.astype(kind).astype(np.int64)
            held = np.clip(wide, most.min, most.max)
            yield "overflow", f"served = truth held at the ends of {name}{width}", 7.0, held
