"""What a request gets that gets no answer: a problem (RFC 9457), with the place where something is wrong."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import orjson

from skewguard.errors import AskError

MEDIA_TYPE = "application/problem+json"


@dataclass(frozen=True, slots=True)
class Wrong:
    """One thing that is wrong with a body: where (as in FastAPI's own errors), what kind, in a sentence."""

    loc: tuple[str | int, ...]
    type: str
    msg: str


class Unanswered(Exception):
    """A request that gets no answer: the HTTP status, a code for machines, a sentence for people.

    `retry_after` in seconds, where trying again later makes sense.
    """

    def __init__(
        self, status: int, code: str, detail: str, *, errors: Sequence[Wrong] = (), retry_after: int | None = None
    ) -> None:
        self.status, self.code, self.detail, self.errors = status, code, detail, tuple(errors)
        self.retry_after = 1 if retry_after is None and status == 503 else retry_after
        super().__init__(detail)

    @property
    def headers(self) -> dict[str, str]:
        """What the response says beside its body."""
        told = {} if self.retry_after is None else {"Retry-After": str(self.retry_after)}
        return told | ({"WWW-Authenticate": "ApiKey"} if self.status == 401 else {})

    def body(self) -> bytes:
        """The problem document."""
        said = {
            "type": "about:blank",
            "title": self.code,
            "status": self.status,
            "code": self.code,
            "detail": self.detail,
        }
        wrong = [{"loc": one.loc, "type": one.type, "msg": one.msg} for one in self.errors]
        return orjson.dumps(said | {"errors": wrong} if wrong else said)


class WrongRow(AskError):
    """An ask among several that cannot be understood; `row` counts from 0, `place` is where the body holds them."""

    def __init__(self, field: str, message: str, row: int, place: str = "instances") -> None:
        super().__init__(field, message)
        self.row, self.place = row, place


def invalid(errors: Sequence[Wrong]) -> Unanswered:
    """A body that cannot be understood."""
    return Unanswered(422, "invalid_request", errors[0].msg, errors=errors)


def unclear(error: AskError) -> Unanswered:
    """An ask that cannot be understood, with the field named; in a list of asks also the row."""
    if error.field == "as_of":
        loc: tuple[str | int, ...] = ("body", "as_of")
    elif isinstance(error, WrongRow):
        loc = ("body", error.place, error.row, error.field)
    else:
        loc = ("body", "entities", error.field)
    return invalid([Wrong(loc, "value_error", str(error))])
