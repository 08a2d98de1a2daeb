"""Picks beam search, greedy search or sampling, and runs it.

The decoder owns the device, the KV cache and the arithmetic on the vocabulary; a search owns what
has been chosen: histories, scores, which beams live on and which items are done. Semantics are
those of CTranslate2 (BeamSearch::search and GreedySearch::search in decoding.cc), float32 scores
and order of ties included. Rows are item-major: row = item * beams + beam.
"""

from __future__ import annotations

from collections.abc import Sequence

from .base import Hypotheses
from .beam import BeamSearch
from .greedy import GreedySearch
from .options import SearchOptions
from .protocol import State, StepDecoder
from .rules import Rules


def run_search(
    decoder: StepDecoder[State],
    state: State,
    start_tokens: Sequence[Sequence[int]],
    eot: int,
    options: SearchOptions,
    rules: Rules,
    watch: int = -1,
) -> list[Hypotheses]:
    """Decode every item of a batch; `state` has one row an item.

    `start_tokens[item]` are the start token and the forced prefix that hypotheses begin with.
    With `watch` >= 0 the probability of that id after the start token, before any rule, is
    returned too. Raises ValueError for options that cannot be honoured.
    """
    options.validate(decoder.n_vocab)
    if not start_tokens:
        raise ValueError("No decoder start tokens are set: pass at least one prompt")
    if not all(start_tokens):
        raise ValueError(
            "One input has no decoder start token: begin every prompt with <|startoftranscript|>"
        )
    search = BeamSearch if options.beam_size > 1 else GreedySearch
    return search(decoder, state, start_tokens, eot, options, rules, watch).run()
