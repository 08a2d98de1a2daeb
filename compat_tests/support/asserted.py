"""``python -m compat_tests.support.asserted ARGUMENTS``: pytest with kernels that assert accesses.

A kernel that reads or writes beside a view (``common/views.mojo``) ends the process, and says in
which line.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

import pytest

from whisper_max_backend.engine.compile import artifacts
from whisper_max_backend.engine.compile.session import Session


def assert_all() -> None:
    """Whatever this process compiles from now on asserts."""
    engine, artifact_name = Session._engine, artifacts.artifact_name

    def asserting(session: Session) -> Any:
        from max.engine.api import AssertLevel

        builder = engine(session)
        builder.set_mojo_assert_level(AssertLevel.ALL)
        return builder

    def named(name: str, key: Mapping[str, object], session: Session) -> str:
        return artifact_name(name, {**key, "assertions": "all"}, session)

    Session._engine = asserting  # type: ignore[method-assign, assignment]
    artifacts.artifact_name = named


if __name__ == "__main__":
    assert_all()
    sys.exit(pytest.main(sys.argv[1:]))
