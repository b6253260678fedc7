"""Everything that skewguard raises on purpose.

SkewguardError
├── DefinitionError      a Feast definition, contract or transform is wrong (all complaints at once)
├── SourceError          a source is missing, unreadable or has another schema
├── AskError             an ask lacks a key, has a naive time or a value of another type
├── CastError            a value does not fit the declared dtype without a loss nobody asked for
├── StoreUnavailable     the online store did not answer
├── LayoutError          packed bytes that no known layout explains
├── LogError             the serving log cannot be written or read
├── SnapshotError        a snapshot is missing, torn or not the one that was named
├── ModelError           a model folder is missing or is not the one that was named
│   └── PredictionError  the model raised on a vector, such as one with a value missing
├── PolicyError          the policy file is wrong (all complaints at once)
├── EvidenceError        what was to be judged could not be examined: UNKNOWN, never PASS
│   └── OtherDefinitions what was served and what was trained were made from different definitions
├── MissingExtra         a part of skewguard was asked for whose packages are not installed
└── Refused              the gate's answer to a model without a passing verdict

A message says what was expected, what came, where, and what to do.
"""


class SkewguardError(Exception):
    """Root of the tree above."""


class DefinitionError(SkewguardError):
    """A definition is wrong. `complaints` holds every one that was found, in order."""

    def __init__(self, complaints: str | list[str]) -> None:
        self.complaints = [complaints] if isinstance(complaints, str) else list(complaints)
        super().__init__("\n".join(self.complaints))


class SourceError(SkewguardError):
    """A source file is missing, unreadable or has another schema than declared."""


class AskError(SkewguardError):
    """An ask cannot be understood. `field` is the dotted place of what is wrong."""

    def __init__(self, field: str, message: str) -> None:
        self.field = field
        super().__init__(f"{field}: {message}")


class CastError(SkewguardError):
    """A value does not fit the declared dtype without a loss that the declaration does not ask for."""


class StoreUnavailable(SkewguardError):
    """The online store did not answer; nothing is known about the values that were asked for."""


class LayoutError(SkewguardError):
    """Packed bytes that no known layout explains."""


class LogError(SkewguardError):
    """The serving log cannot be written or read."""


class SnapshotError(SkewguardError):
    """A snapshot is missing, torn, or not the one that was named."""


class ModelError(SkewguardError):
    """A model folder is missing, or is not the one that was named."""


class PredictionError(ModelError):
    """The model raised instead of predicting; `missing` names the columns in which the vector had no value."""

    def __init__(self, message: str, missing: tuple[str, ...] = ()) -> None:
        self.missing = missing
        super().__init__(message)


class PolicyError(SkewguardError):
    """A policy file is wrong. `complaints` holds every one that was found."""

    def __init__(self, complaints: str | list[str]) -> None:
        self.complaints = [complaints] if isinstance(complaints, str) else list(complaints)
        super().__init__("\n".join(self.complaints))


class EvidenceError(SkewguardError):
    """What was to be judged could not be examined. Leads to UNKNOWN, never to PASS."""


class OtherDefinitions(EvidenceError):
    """What was served and what was trained were made from different definitions, transforms or fitted values."""


class MissingExtra(SkewguardError):
    """A part of skewguard was asked for whose packages are not installed."""

    def __init__(self, what: str, extra: str) -> None:
        super().__init__(f"{what} needs packages that are not installed: pip install 'skewguard[{extra}]'")


class Refused(SkewguardError):
    """The gate's answer to a model without a passing verdict."""
