"""What the graphs get of a batch of alignments, and how their answers are read."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from compat_tests.support.miniature import ARCHITECTURES, vocabulary_tokens
from whisper_max_backend.engine.api.alignment import AlignmentCall
from whisper_max_backend.engine.checkpoint.dimensions import Dimensions
from whisper_max_backend.engine.checkpoint.vocabulary import Vocabulary
from whisper_max_backend.engine.state.alignment_request import AlignmentRequest, Alignments

REQUEST = AlignmentRequest(
    # Two tokens of the start sequence, <|notimestamps|> (2), text, <|endoftext|> (9), padding.
    tokens=np.array([[0, 1, 2, 40, 41, 9], [0, 1, 2, 50, 9, 0]], np.int32),
    lengths=np.array([6, 5], np.int32),
    frames=np.array([50, 40], np.int32),
    heads=[(2, 1), (0, 3), (0, 1)],
    start_length=2,
    median_filter_width=7,
    eot=9,
)


def test_heads_come_in_the_order_of_the_layers() -> None:
    assert REQUEST.sorted_heads.tolist() == [[0, 1], [0, 3], [2, 1]]


def test_weights_are_normalised_over_all_tokens_where_frames_are_equal() -> None:
    """As the reference does: with frames of their own, over the tokens of the item."""
    assert REQUEST.weight_sizes.tolist() == [[6, 6, 50], [5, 5, 40]]
    equal = replace(REQUEST, frames=np.array([50, 50], np.int32))
    assert equal.weight_sizes.tolist() == [[6, 6, 50], [5, 6, 50]]


def test_paths_go_from_the_last_of_the_start_sequence_to_the_last_of_the_text() -> None:
    assert REQUEST.matrices.tolist() == [[2, 3, 50], [2, 2, 40]]


def test_a_graph_has_a_frame_at_least() -> None:
    assert REQUEST.most_frames == 50
    assert replace(REQUEST, frames=np.zeros(2, np.int32)).most_frames == 1


def test_each_token_is_to_be_followed_by_the_next() -> None:
    targets = REQUEST.targets
    assert targets.shape == (2, 6, 1)
    assert targets[:, :, 0].tolist() == [[1, 2, 40, 41, 9, 0], [1, 2, 50, 9, 0, 0]]


def test_arrays_have_the_type_of_the_graphs() -> None:
    for array in (REQUEST.sorted_heads, REQUEST.weight_sizes, REQUEST.matrices, REQUEST.targets):
        assert array.dtype == np.int32


def test_paths_end_where_they_are_as_long_as_is_told() -> None:
    paths = np.arange(12).reshape(2, 3, 2)
    probabilities = np.linspace(0, 1, 6, dtype=np.float32).reshape(2, 3, 1)
    found = Alignments.of(paths, np.array([3, 1]), probabilities)
    assert found.paths == [[(0, 1), (2, 3), (4, 5)], [(6, 7)]]
    np.testing.assert_array_equal(found.probabilities, probabilities[:, :, 0])


def test_a_request_is_no_other_than_itself() -> None:
    assert replace(REQUEST) != REQUEST


@pytest.mark.parametrize(
    ("shape", "most"), [((2, 80, 61), 31), ((2, 80, 60), 30), ((2, 25, 64), 25), ((2, 70, 64), 70)]
)
def test_frames_are_those_that_there_are(shape: tuple[int, ...], most: int) -> None:
    """Of features ``[batch, n_mels, frames]`` or encoder output ``[batch, positions, state]``."""
    dimensions = Dimensions(80, 100, 64, 1, 1, 2000, 448, 64, 1, 1)
    vocabulary = Vocabulary(vocabulary_tokens(ARCHITECTURES["one-head"]))
    call = AlignmentCall.of(np.zeros(shape, np.float32), [5], [[40], [41]], [11, 100_000], 7)
    request = call.plan(dimensions, vocabulary, {"alignment_heads": [[0, 0]]})
    assert request is not None
    assert request.frames.tolist() == [5, most]
