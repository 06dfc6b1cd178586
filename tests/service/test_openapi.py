"""The description of the service is whole, and no request that fits or does not fit it brings an error of ours."""

import os

import pytest

from services import live

EXAMPLES = int(os.environ.get("CIG_HOSTILE", "1")) * 40  # cases a route
ROUTES = {
    ("get", "/"),
    ("get", "/healthz"),
    ("get", "/metrics"),
    ("get", "/readyz"),
    ("post", "/v1/search"),
    ("get", "/v1/search/{id}"),
    ("delete", "/v1/search/{id}"),
    ("get", "/v1/search/{id}/imagined"),
    ("get", "/v1/pictures"),
    ("get", "/v1/pictures/{name}"),
    ("put", "/v1/pictures/{name}"),
    ("delete", "/v1/pictures/{name}"),
    ("get", "/v1/pictures/{name}/thumbnail"),
}


def test_every_route_is_described_with_examples(steady):
    schema = steady.get("/openapi.json", headers={"Authorization": ""}).json()
    operations = {(method, path): one for path, methods in schema["paths"].items() for method, one in methods.items()}
    assert set(operations) == ROUTES
    assert schema["components"]["securitySchemes"]["token"]["scheme"] == "bearer"
    for (method, path), operation in operations.items():
        assert operation["summary"]
        assert (operation.get("security") == []) == (path in ("/healthz", "/readyz")), path
        for status, answer in operation["responses"].items():
            for kind, content in answer.get("content", {}).items():
                assert "example" in content or "json" not in kind, (method, path, status)
        for content in operation.get("requestBody", {}).get("content", {}).values():
            assert "example" in content, path
        assert all(parameter.get("description") for parameter in operation.get("parameters", ()))
    assert len({one["operationId"] for one in operations.values()}) == len(operations)
    assert "Retry-After" in operations["post", "/v1/search"]["responses"]["429"]["headers"]


@pytest.mark.slow
def test_no_request_brings_an_error_of_ours(index, made):
    schemathesis = pytest.importorskip("schemathesis", reason="pip install schemathesis")
    from hypothesis import HealthCheck, Phase, given, settings

    names = ("not_a_server_error", "status_code_conformance", "content_type_conformance", "response_schema_conformance")
    checks = [getattr(schemathesis.checks, name) for name in names]
    called = set()
    with live(index, imagine=lambda _: made / "photos/blue/02.png") as (caller, _):
        schema = schemathesis.openapi.from_dict(caller.get("/openapi.json").json())
        schema.config.update(base_url=str(caller.base_url))
        for result in schema.get_all_operations():
            operation = result.ok()

            @given(case=operation.as_strategy())
            @settings(
                max_examples=EXAMPLES,
                deadline=None,
                derandomize=True,
                database=None,
                suppress_health_check=list(HealthCheck),
                phases=[Phase.generate],
            )
            def check(case):
                answer = case.call(headers=dict(caller.headers))
                case.validate_response(answer, checks=checks)

            check()
            called.add((operation.method, operation.path))
        assert caller.post("/v1/search", json={"text": "red"}).status_code == 200
    assert called == ROUTES
