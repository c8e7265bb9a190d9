"""The key of sealed cells: one for these tests, not that of whoever runs them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from edgealloc.bench import seal


@pytest.fixture(scope="session", autouse=True)
def key(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_DATA_HOME", str(tmp_path_factory.mktemp("keys")))
        seal.user_key.cache_clear()
        yield
    seal.user_key.cache_clear()
