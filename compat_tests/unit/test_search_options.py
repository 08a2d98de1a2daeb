"""Options of the searches: limits, defaults, and what is refused."""

from __future__ import annotations

import ast
import re
from typing import Any

import ctranslate2
import pytest

from compat_tests.support.decoding_case import DecodingCase
from whisper_max_backend.engine.search.options import SearchOptions


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"beam_size": 0}, "beam_size"),
        ({"patience": 0.0}, "patience"),
        ({"patience": -1.0}, "patience"),
        ({"num_hypotheses": 0}, "num_hypotheses"),
        ({"num_hypotheses": 4, "beam_size": 3}, "num_hypotheses"),
        ({"num_hypotheses": 2, "beam_size": 1}, "num_hypotheses"),
        ({"beam_size": 1, "patience": 0.4}, "num_hypotheses"),
        ({"max_length": 3}, "max_length"),
        ({"repetition_penalty": 0.0}, "repetition_penalty"),
        ({"beam_size": 1, "sampling_topk": 10**6}, "sampling_topk"),
    ],
    ids=str,
)
def test_bad_options(one_model: DecodingCase, options: dict[str, Any], named: str) -> None:
    """Refused like the reference refuses them, with the argument named."""
    encoded = ctranslate2.StorageView.from_array(one_model.encoded[:1])
    with pytest.raises(ValueError) as expected:  # noqa: PT011
        one_model.reference.generate(encoded, [one_model.prompt()], **options)
    with pytest.raises(ValueError, match=named) as raised:
        one_model.generate([one_model.prompt()], **options)
    gist = str(expected.value).split(" > ")[0].split(" (")[0]
    assert gist in str(raised.value)


@pytest.mark.parametrize(
    "options",
    [
        {"beam_size": 2, "sampling_topk": 0},
        {"beam_size": 2, "sampling_topk": 4},
        {"beam_size": 2, "sampling_topk": 3, "sampling_temperature": 0.0},
        {"beam_size": 1, "sampling_topk": 10},
        {"beam_size": 5, "num_hypotheses": 5},
        {"beam_size": 1, "num_hypotheses": 9, "sampling_topk": 0},
        {"max_length": -1},
    ],
    ids=str,
)
def test_options_at_the_limit(options: dict[str, Any]) -> None:
    SearchOptions(**options).validate(10)


@pytest.mark.parametrize("options", [{"beam_size": 2}, {"beam_size": 1, "sampling_topk": 4}])
def test_options_beyond_a_small_vocabulary(options: dict[str, Any]) -> None:
    SearchOptions(**options).validate(4)
    with pytest.raises(ValueError, match=list(options)[-1]):
        SearchOptions(**options).validate(3)


def test_defaults_are_those_of_generate() -> None:
    signature = str(ctranslate2.models.Whisper.generate.__doc__).splitlines()[0]
    for name, default in vars(SearchOptions()).items():
        if name not in ("max_length", "seed"):
            stated = re.search(rf"\b{name}: [^=]*= ([^,)]*)", signature)
            assert stated is not None
            assert ast.literal_eval(stated[1]) == default


@pytest.mark.parametrize(
    ("beam_size", "patience", "expected"), [(5, 1.0, 5), (5, 0.5, 3), (1, 0.5, 1), (3, 1.5, 5)]
)
def test_patience_rounds_half_away_from_zero(
    beam_size: int, patience: float, expected: int
) -> None:
    options = SearchOptions(beam_size=beam_size, patience=patience)
    assert options.max_candidates == expected


@pytest.mark.parametrize(
    "options",
    [
        {"beam_size": 2000},
        {"beam_size": 5, "sampling_topk": 4},
        {"patience": float("nan")},
    ],
    ids=str,
)
def test_options_the_reference_reads_out_of_bounds(
    one_model: DecodingCase, options: dict[str, Any]
) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        one_model.generate([one_model.prompt()], **options)
