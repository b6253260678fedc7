import json
import urllib.error
import urllib.request
from dataclasses import replace
from pathlib import Path

import mlflow
import pytest
from mlflow.exceptions import MlflowException, RestException

from skewguard.gate import Refused
from skewguard.gate.mlflow import register
from tests.gate.conftest import World


def test_a_stock_client_of_a_gated_server_is_refused_and_then_admitted(server: World) -> None:
    """A client without any configuration is denied until its model has a verdict, and leaves nothing behind."""
    name = "gated-over-http"
    with pytest.raises(RestException, match=r"PERMISSION_DENIED: skewguard: model m-.* has no verdict"):
        server.log_model(registered_name=name)
    assert server.client().search_registered_models(f"name = '{name}'") == []
    with pytest.raises(Refused, match=r"^model m-.* has no verdict; run"):
        register(server.log_model(), name, registry_uri=server.registry_uri, tracking_uri=server.tracking_uri)
    version = mlflow.register_model(f"models:/{server.judged(name)}", name).version
    server.client().set_registered_model_alias(name, "champion", version)
    assert server.client().get_model_version_by_alias(name, "champion").run_id


def test_a_plain_request_is_answered_with_403(server: World) -> None:
    """The gate stands behind every route: a request without MLflow's client is refused by the same sentence."""
    name, model_id = "gated-by-hand", server.log_model()
    assert _post(server, "registered-models/create", {"name": name})[0] == 200
    body = {"name": name, "source": f"models:/{model_id}", "model_id": model_id}
    status, answer = _post(server, "model-versions/create", body)
    assert (status, answer["error_code"]) == (403, "PERMISSION_DENIED")
    assert "it has no verdict" in answer["message"]


def test_a_servers_ungoverned_models_are_untouched(server: World) -> None:
    """Without a verdict, under a name that the policy does not govern, everything works."""
    created = mlflow.register_model(f"models:/{server.log_model()}", "free")
    server.client().set_registered_model_alias("free", "champion", created.version)


def test_a_models_files_are_read_where_the_server_keeps_them(server: World) -> None:
    """A file that was overwritten through the server's own artifact route after the verdict is noticed."""
    name = "gated-tampered"
    model_id = server.judged(name)
    location = server.client().get_logged_model(model_id).artifact_location
    path = location.removeprefix("mlflow-artifacts:/") + "/requirements.txt"
    request = urllib.request.Request(
        f"{server.tracking_uri}/api/2.0/mlflow-artifacts/artifacts/{path}", data=b"evil", method="PUT"
    )
    with urllib.request.urlopen(request) as answer:
        assert answer.status == 200
    with pytest.raises(RestException, match="its files have changed since it was judged"):
        mlflow.register_model(f"models:/{model_id}", name)


def test_a_client_may_stand_a_gate_of_its_own_before_a_server(
    server: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`skewguard:http://...` gates this client's registrations by this client's policy."""
    policy = tmp_path / "policy.toml"
    policy.write_text('[policy]\ngoverns = ["client-*"]\npromotion = ["shadow"]\n')
    monkeypatch.setenv("SKEWGUARD_POLICY", str(policy))
    own = replace(server, registry_uri=f"skewguard:{server.registry_uri}", policy=policy)
    mlflow.set_registry_uri(own.registry_uri)
    with pytest.raises(MlflowException, match="it has no verdict"):
        mlflow.register_model(f"models:/{own.log_model()}", "client-side")
    assert own.client().search_registered_models("name = 'client-side'") == []
    uris = {"registry_uri": own.registry_uri, "tracking_uri": own.tracking_uri}
    assert register(own.judged("client-side"), "client-side", alias="champion", **uris) == "1"


def _post(server: World, route: str, body: dict[str, str]) -> tuple[int, dict[str, str]]:
    request = urllib.request.Request(
        f"{server.tracking_uri}/ajax-api/2.0/mlflow/{route}",
        data=json.dumps(body).encode(),
        headers={"Content-Type": "application/json"},
    )
    try:
        with urllib.request.urlopen(request) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)
