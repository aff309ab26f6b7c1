import os

import pytest


@pytest.fixture(autouse=True)
def _no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test of the API may find a key or an endpoint in the environment."""
    for name in list(os.environ):
        if name.endswith("_API_KEY") or name.startswith("CALIBER_") or name in {"OPENAI_BASE_URL"}:
            monkeypatch.delenv(name)
