"""Two commits in turns: what the pairs are made into, and what is checked out."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.compare import commits
from benchmarks.compare.command import broken, ratio_of
from benchmarks.compare.commits import checked_out


def test_a_ratio_is_the_median_of_the_pairs() -> None:
    """Not the ratio of the medians: what slows a whole pair down says nothing."""
    one = ratio_of("case", [1.0, 2.0, 10.0], [1.1, 2.2, 10.0])
    assert one.ratio == pytest.approx(1.1)
    assert one.low == pytest.approx(1.0)
    assert one.high == pytest.approx(1.1)


def test_only_what_is_slower_than_the_limit_is_broken() -> None:
    ratios = [ratio_of(str(new), [1.0] * 3, [new] * 3) for new in (0.5, 1.02, 1.04)]
    assert broken(ratios, 3) == ["1.04 takes +4.0 %"]


def test_a_commit_is_checked_out_and_goes_again(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commits, "ROOT", repository)
    (repository / "code.py").write_text("a = 2\n")
    with checked_out("HEAD", tmp_path / "old") as commit:
        assert (commit.tree / "code.py").read_text() == "a = 1\n"
    assert not commit.tree.exists()
    assert (repository / "code.py").read_text() == "a = 2\n"
    with (
        pytest.raises(RuntimeError, match="no such name"),
        checked_out("no such name", tmp_path / "other"),
    ):
        pass
