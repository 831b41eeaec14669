"""Bodies that are no good, before anything looks at what they say."""

import httpx
import pytest
from request_bodies import completion

from tapster.server.http.body import MAX_DEPTH, parse_json
from tapster.server.http.errors import ApiError

JSON = {"content-type": "application/json"}


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "must be a JSON object"),
        (b"{", "not valid JSON"),
        (b"[1]", "must be a JSON object"),
        (b"null", "must be a JSON object"),
        (b'"text"', "must be a JSON object"),
        (b"\xff\xfe", "not UTF-8: byte 0 is 0xff"),
        (b'{"model": "\xc3\x28"}', "not UTF-8"),
        (b'{"temperature": NaN}', "NaN is not a JSON number"),
        (b'{"temperature": -Infinity}', "-Infinity is not a JSON number"),
        (b'{"temperature": 1e999}', "1e999 is too large"),
        (b'{"seed": ' + b"9" * 5000 + b"}", "not valid JSON"),
        (b'{"model": "\\ud800"}', "half of a surrogate pair"),
        (b'{"\\udc00": 1}', "half of a surrogate pair"),
        (b"[" * 100_000, "nested more than 100 levels"),
        (b'{"a":' * 200 + b"1" + b"}" * 200, "nested more than 100 levels"),
        (b" " * 5_000_000, "larger than 4194304 bytes"),
    ],
)
@pytest.mark.parametrize("url", ["/v1/chat/completions", "/v1/completions", "/tokenize"])
def test_a_bad_body_is_a_400(http: httpx.Client, url: str, body: bytes, message: str) -> None:
    response = http.post(url, content=body, headers=JSON)
    assert response.status_code == 400
    assert message in response.json()["error"]["message"]


def test_a_body_of_unknown_length_is_limited_too(http: httpx.Client) -> None:
    response = http.post("/tokenize", content=(b" " * 100_000 for _ in range(50)), headers=JSON)
    assert response.status_code == 400
    assert response.json()["error"]["code"] == "body_too_large"


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "application/jsonp", ""])
def test_only_json_is_taken(http: httpx.Client, kind: str) -> None:
    response = http.post("/tokenize", content=b'{"content": "a"}', headers={"content-type": kind} if kind else {})
    assert response.status_code == 400
    assert "Content-Type: application/json" in response.json()["error"]["message"]


def test_json_by_other_names_is_taken(http: httpx.Client) -> None:
    for kind in ("application/json; charset=utf-8", "Application/JSON", "application/vnd.api+json"):
        response = http.post("/tokenize", content=b'{"content": "a"}', headers={"content-type": kind})
        assert response.status_code == 200


def test_whole_surrogate_pairs_and_deep_values_pass() -> None:
    assert parse_json(b'{"a": "\\ud83c\\udf89"}') == {"a": "🎉"}
    deep = b"[" * MAX_DEPTH + b"]" * MAX_DEPTH
    assert parse_json(deep)
    with pytest.raises(ApiError, match="levels deep"):
        parse_json(b"[" + deep + b"]")


def test_a_template_that_raises_is_a_400(narrow_http: httpx.Client) -> None:
    body = {"messages": [{"role": "user", "content": "raise"}]}
    response = narrow_http.post("/apply-template", json=body)
    assert response.status_code == 400
    assert response.json()["error"]["param"] == "messages"
    assert "no raising here" in response.json()["error"]["message"]


def test_unknown_urls_and_wrong_methods_are_error_objects(http: httpx.Client) -> None:
    unknown = http.get("/v1/responses")
    assert (unknown.status_code, unknown.json()["error"]["code"]) == (404, "unknown_url")
    assert http.get("/nowhere").json()["error"]["code"] == "unknown_url"
    wrong = http.get("/v1/completions")
    assert (wrong.status_code, wrong.headers["allow"]) == (405, "POST")
    assert "only POST" in wrong.json()["error"]["message"]
    assert http.delete("/v1/models/demo").status_code == 405
    assert http.put("/tokenize", json=completion()).json()["error"]["code"] == "method_not_allowed"
