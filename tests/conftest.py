"""What every test stands on: one hypothesis profile, no network, few threads."""

import os

import pytest
from hypothesis import HealthCheck, settings

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

settings.register_profile(
    "tunesmith", deadline=None, max_examples=50, suppress_health_check=[HealthCheck.too_slow], derandomize=True
)
settings.load_profile("tunesmith")


@pytest.fixture(autouse=True)
def _no_settings_of_the_person_who_runs_the_tests(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drop `TUNESMITH_*` settings from the environment, so that a test sees the defaults."""
    for name in list(os.environ):
        if name.startswith("TUNESMITH_") and not name.startswith(("TUNESMITH_TEST_", "TUNESMITH_SDK_")):
            monkeypatch.delenv(name)


@pytest.fixture
def anyio_backend() -> str:
    """Run `@pytest.mark.anyio` tests on asyncio, the product's only event loop."""
    return "asyncio"
