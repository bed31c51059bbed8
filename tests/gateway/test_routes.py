"""Route selection."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends.gateway.routes import RouteTable

TABLE = RouteTable(
    ["GET /", "POST /predict", "GET /reviews/{id}", "ANY /reviews/latest", "GET /files/{proxy+}", "$default"]
)


@pytest.mark.parametrize(
    ("method", "path", "key", "variables"),
    [
        ("POST", "/predict", "POST /predict", {}),
        ("GET", "/", "GET /", {}),
        ("GET", "/reviews/7", "GET /reviews/{id}", {"id": "7"}),
        ("GET", "/reviews/a%2Fb", "GET /reviews/{id}", {"id": "a/b"}),
        ("GET", "/reviews/latest", "ANY /reviews/latest", {}),
        ("DELETE", "/reviews/latest", "ANY /reviews/latest", {}),
        ("GET", "/files/a/b/c", "GET /files/{proxy+}", {"proxy": "a/b/c"}),
        ("GET", "/predict", "$default", {}),
        ("GET", "/files/", "$default", {}),
    ],
)
def test_selection(method: str, path: str, key: str, variables: dict[str, str]) -> None:
    """The most particular route wins: an exact path, then variables, then a greedy one, then $default."""
    found = TABLE.find(method, path)
    assert found is not None
    assert (found[0].key, dict(found[1])) == (key, variables)


def test_no_route() -> None:
    """Where nothing matches, nothing is guessed: not another method, not a path with a slash more."""
    table = RouteTable(["POST /predict"])
    assert table.find("GET", "/predict") is None
    assert table.find("POST", "/predict/") is None
    assert table.find("POST", "/predict/x") is None


@pytest.mark.parametrize("key", ["", "/predict", "FETCH /x", "GET predict", "GET /a{b}", "GET /{a}{b}", "GET /{a"])
def test_bad_key(key: str) -> None:
    """A route that cannot be meant is refused when the gateway is made."""
    with pytest.raises(ValueError, match="route"):
        RouteTable([key])


@given(st.text(alphabet=st.characters(min_codepoint=0x21, max_codepoint=0x7E, exclude_characters="{}/")))
def test_literal_is_literal(segment: str) -> None:
    """A route without variables matches its own path and no pattern-like relative of it."""
    table = RouteTable([f"GET /x{segment}"])
    assert table.find("GET", f"/x{segment}") is not None
    assert table.find("GET", f"/x{segment}x") is None
