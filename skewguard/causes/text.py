"""Texts that are the same once they are normalised, or were cut, or read in another encoding."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterator

import numpy as np

from skewguard.causes.evidence import Evidence, Explanation
from skewguard.causes.timeline import encode
from skewguard.values import Column, Dtype

FORMS: tuple[tuple[str, Callable[[str], str]], ...] = (
    ("in small letters", str.lower),
    ("in capital letters", str.upper),
    ("with capital initials", str.title),
    ("with a capital initial", str.capitalize),
    ("without the spaces around it", str.strip),
    ("with single spaces", lambda text: " ".join(text.split())),
    ("without spaces", lambda text: "".join(text.split())),
    ("in Unicode's composed form (NFC)", lambda text: unicodedata.normalize("NFC", text)),
    ("in Unicode's decomposed form (NFD)", lambda text: unicodedata.normalize("NFD", text)),
    ("in Unicode's compatible form (NFKC)", lambda text: unicodedata.normalize("NFKC", text)),
    ("in ASCII alone", lambda text: unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()),
    ("without signs beyond ASCII", lambda text: text.encode("ascii", "ignore").decode()),
    ("with its UTF-8 read as Latin-1", lambda text: text.encode().decode("latin-1")),
    ("with its UTF-8 read as Windows-1252", lambda text: text.encode().decode("cp1252", "replace")),
    ("without leading zeros", lambda text: text.lstrip("0")),
    ("without signs other than letters and digits", lambda text: "".join(c for c in text if c.isalnum())),
    ("as a number with a fraction", lambda text: text + ".0"),
    ("in quotes", lambda text: f'"{text}"'),
    ("in small letters, without the spaces around it", lambda text: text.strip().lower()),
    ("in capital letters, without the spaces around it", lambda text: text.strip().upper()),
)


def explain(evidence: Evidence) -> Iterator[Explanation]:
    """Served is the truth in another form, or the reverse; of whatever form: the same but for case and spaces."""
    served, truth = evidence.served, evidence.truth
    if served is None or truth is None or truth.dtype is not Dtype.STRING:
        return
    both = served.present & truth.present
    if not both.any():
        return
    a, b, place = _distinct(served, truth)
    for i, (name, form) in enumerate(FORMS):
        there = np.array([form(y) == x for x, y in zip(a, b, strict=True)])
        back = np.array([form(x) == y for x, y in zip(a, b, strict=True)])
        for same, what in ((there, f"served = truth {name}"), (back, f"truth = served {name}")):
            if same.any():
                yield Explanation("text", what, both & same[place], 5.0 + i / 4)
    folded = np.array([_folded(x) == _folded(y) for x, y in zip(a, b, strict=True)])
    if folded.any():
        what = "served is the truth but for case, spaces and Unicode form"
        yield Explanation("text", what, both & folded[place], 14.0)
    longest = max(len(x) for x in a)
    cut = np.array([len(y) > longest and y[:longest] == x for x, y in zip(a, b, strict=True)])
    if cut.any():
        yield Explanation("text", f"served = the first {longest} characters of the truth", both & cut[place], 12.0)
    yield from _affixed(both, a, b, place)


def _affixed(both: np.ndarray, a: list[str], b: list[str], place: np.ndarray) -> Iterator[Explanation]:
    """One and the same text before or after the truth."""
    for what, parts in (
        ("after", [x[len(y) :] if y and x.startswith(y) else "" for x, y in zip(a, b, strict=True)]),
        ("before", [x[: -len(y)] if y and x.endswith(y) else "" for x, y in zip(a, b, strict=True)]),
    ):
        added, counts = np.unique(np.array(parts, dtype=object).astype(str), return_counts=True)
        counts = np.where(added == "", 0, counts)
        if counts.max() >= 2:
            one = str(added[counts.argmax()])
            same = np.array([part == one for part in parts])
            yield Explanation("text", f"served = truth with {one!r} {what} it", both & same[place], 8.0 + 8 * len(one))


def _distinct(served: Column, truth: Column) -> tuple[list[str], list[str], np.ndarray]:
    """Distinct pairs of texts, and which of them each row has."""
    codes = encode(truth)
    _, first, place = np.unique(encode(served) * (int(codes.max()) + 1) + codes, return_index=True, return_inverse=True)
    return [str(x) for x in served.values[first]], [str(y) for y in truth.values[first]], place


def _folded(text: str) -> str:
    return "".join(unicodedata.normalize("NFKC", text).casefold().split())
