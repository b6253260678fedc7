"""The service against its own OpenAPI document: what the document allows is answered as it says, and nothing else."""

from contextlib import suppress
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import seed as seeded
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.checks import CHECKS

from tests.loop import SERVICE, Loop
from tests.servers import OK, Client

# A value may be of the declared type and still not be one: 2**53 + 1 is no float64, and no clock is at year 9999.
CHECKED = [CHECKS.get_one(name) for name in CHECKS.get_all_names() if name != "positive_data_acceptance"]


@pytest.fixture(scope="module")
def client(loop: Loop, tmp_path_factory: pytest.TempPathFactory) -> Client:
    """A client of a server that is asked anything."""
    return Client(loop, tmp_path_factory.mktemp("log"))


def test_whatever_the_document_allows_or_forbids_is_answered_as_it_says(client: Client) -> None:
    """Generated requests to every route, right and wrong: no undocumented status, header, type or shape, no 500."""
    schema = schemathesis.openapi.from_asgi("/openapi.json", client.application)
    found: list[Any] = list(schema.get_all_operations())
    operations = [one.ok() for one in found]
    assert len(operations) > 12
    for operation in operations:
        for mode in GenerationMode:
            with suppress(Unsatisfiable):  # nothing is wrong with a request that has nothing in it
                _ask(operation, mode)


def _ask(operation: Any, mode: GenerationMode) -> None:
    few = settings(
        max_examples=8,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )

    @seeded(7)
    @few
    @given(case=operation.as_strategy(generation_mode=mode))
    def ask(case: Any) -> None:
        case.call_and_validate(checks=CHECKED)

    ask()


def test_the_document_names_the_keys_and_fields_of_the_bundle(client: Client, loop: Loop) -> None:
    """Clients that are generated from the document know what an ask holds."""
    schemas = client.get("/openapi.json").json()["components"]["schemas"]
    assert set(schemas["Entities"]["required"]) == set(OK)
    assert schemas["Entities"]["properties"]["stops"]["anyOf"][0]["type"] == "integer"
    assert loop.bundle.service == SERVICE
    assert "HTTPValidationError" not in schemas
