"""Under which addresses the page of `whisper-max demo` answers."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from whisper_max_backend.cli import main
from whisper_max_backend.demo.addresses import Addresses

PORT = 7860


@pytest.mark.parametrize(
    ("host", "names", "asked", "origin", "taken"),
    [
        ("127.0.0.1", [], "localhost:7860", None, True),
        ("127.0.0.1", [], "LocalHost:7860", "http://localhost:7860", True),
        ("127.0.0.1", [], "127.0.0.1:7860", "http://127.0.0.1:7860", True),
        ("127.0.0.1", [], "[::1]:7860", "http://[::1]:7860", True),
        ("127.0.0.1", [], "localhost:7860", "http://127.0.0.1:7860", True),
        ("127.0.0.1", [], "localhost:7861", None, False),
        ("127.0.0.1", [], "localhost", None, False),
        ("127.0.0.1", [], "", None, False),
        ("127.0.0.1", [], "evil.example:7860", None, False),
        ("127.0.0.1", [], "localhost:7860@evil.example", None, False),
        ("127.0.0.1", [], "localhost.evil.example:7860", None, False),
        ("127.0.0.1", [], "192.168.1.5:7860", None, False),
        ("127.0.0.1", [], "localhost:7860", "http://evil.example", False),
        ("127.0.0.1", [], "localhost:7860", "http://localhost:3000", False),
        ("127.0.0.1", [], "localhost:7860", "http://localhost", False),
        ("127.0.0.1", [], "localhost:7860", "null", False),
        ("127.0.0.1", [], "localhost:7860", "", False),
        ("127.0.0.1", [], "localhost:7860", "file://localhost:7860", False),
        ("192.168.1.5", [], "192.168.1.5:7860", "http://192.168.1.5:7860", True),
        ("192.168.1.5", [], "192.168.1.6:7860", None, False),
        ("fe80::1", [], "[fe80::1]:7860", None, True),
        ("0.0.0.0", [], "192.168.1.5:80", "http://192.168.1.5:80", True),
        ("::", [], "[fe80::1]:7860", "http://[fe80::1]:7860", True),
        ("0.0.0.0", [], "192.168.1.5:7860", "http://192.168.1.6:7860", False),
        ("0.0.0.0", [], "evil.example:7860", None, False),
        ("127.0.0.1", ["demo.example"], "demo.example", "https://demo.example", True),
        ("127.0.0.1", ["Demo.example"], "127.0.0.1:7860", "https://demo.example", True),
        ("127.0.0.1", ["demo.example"], "demo.example:8443", "https://demo.example:8443", True),
        ("127.0.0.1", ["demo.example"], "demo.example", "https://evil.example", False),
    ],
)
def test_addresses(
    host: str, names: list[str], asked: str, origin: str | None, taken: bool
) -> None:
    headers = [(b"host", asked.encode())]
    if origin is not None:
        headers.append((b"origin", origin.encode()))
    scope = {"type": "http", "server": ("127.0.0.1", PORT), "headers": headers}
    assert (not Addresses(host, names).refusal(scope)) == taken


def test_two_hosts_are_none() -> None:
    headers = [(b"host", b"localhost:7860")] * 2
    scope = {"type": "http", "server": ("127.0.0.1", PORT), "headers": headers}
    assert "--allow-host" in Addresses("127.0.0.1").refusal(scope)


@pytest.mark.parametrize("name", ["https://demo.example", "demo.example:80", "a/b", ""])
def test_a_name_that_is_none_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="no name of a host"):
        Addresses("127.0.0.1", [name])
    said = CliRunner().invoke(main, ["demo", "--backend", "max", "--allow-host", name])
    assert said.exit_code == 1
    assert "no name of a host" in said.output
