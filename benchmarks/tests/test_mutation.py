"""The table of `mutation.json` still fits the repository."""

from __future__ import annotations

import json
from pathlib import Path

ROOT = Path(__file__).parents[2]
SETTINGS = json.loads((ROOT / "benchmarks" / "mutation.json").read_text(encoding="utf-8"))


def test_files_and_their_tests_exist() -> None:
    for file, tests in SETTINGS["tests"].items():
        assert (ROOT / file).exists(), file
        for test in tests:
            path, _, name = test.partition("::")
            assert f"def {name}" in (ROOT / path).read_text(encoding="utf-8"), test


def test_lines_that_may_change_are_there_and_have_a_reason() -> None:
    for entry in SETTINGS["equivalent"]:
        assert entry.keys() == {"file", "before", "after", "reason"}
        source = " ".join((ROOT / entry["file"]).read_text(encoding="utf-8").split())
        assert " ".join(entry["before"].split()) in source, entry
        assert entry["before"] != entry["after"]
        assert entry["reason"]
