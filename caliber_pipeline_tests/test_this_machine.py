"""The tests themselves: none of them may depend on what answers beyond this machine."""

import socket

import pytest


def test_a_connection_beyond_loopback_is_refused() -> None:
    with pytest.raises(UserWarning, match=r'with host "192\.0\.2\.1"'):
        socket.create_connection(("192.0.2.1", 9), timeout=1)  # TEST-NET-1, RFC 5737


def test_a_connection_to_loopback_is_not() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()[:2]):
        pass
