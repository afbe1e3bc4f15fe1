"""What every test of the core may have: schedulers that are checked when it ends."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Callable

import pytest

from tests.core.fake import Env

MakeEnv = Callable[..., Env]


@pytest.fixture
def make_env() -> Iterator[MakeEnv]:
    """Makes schedulers with a strict fake around them; in the end all effects were taken and all invariants hold."""
    made: list[Env] = []

    def build(**options: object) -> Env:
        made.append(Env(**options))  # type: ignore[arg-type]  # each test knows its options
        return made[-1]

    yield build
    for env in made:
        env.finish()


@pytest.fixture
def env(make_env: MakeEnv) -> Env:
    """With one context, number 1."""
    made = make_env()
    assert made.context() == 1
    return made
