"""A call of ``Whisper.generate``: its arguments, and what they mean for a model.

Types are judged at the call, values when the request is run, as the reference does.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar, get_type_hints

import numpy as np

from ..checkpoint.dimensions import Dimensions
from ..checkpoint.vocabulary import Vocabulary
from ..search.options import SearchOptions
from ..search.rules import FixedRules, Rules, Timestamps, fixed_bans, make_rules
from . import arguments
from .features import Features, as_features, check_batch
from .seed import request_seed

Method = TypeVar("Method", bound=Callable[..., Any])

_READERS: Mapping[Any, Callable[[str, Any], Any]] = {
    int: arguments.count,
    float: arguments.real,
    bool: lambda _, value: bool(value),
    Sequence[int] | None: lambda name, ids: () if ids is None else arguments.integers(name, ids),
}
"""How the value of an option is read, by its type."""
_OPTIONS = {
    name: _READERS[of_type]
    for name, of_type in get_type_hints(SearchOptions).items()
    if name != "seed"
}
"""Of callers, in the order of the reference's signature."""


def takes_search_options(method: Method) -> Method:
    """Shows the options in the signature of a method that takes them as ``**options``."""
    signature = inspect.signature(method)
    *named, _ = signature.parameters.values()
    defaults = vars(SearchOptions())
    shown = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=defaults[name])
        for name in _OPTIONS
    ]
    setattr(method, "__signature__", signature.replace(parameters=[*named, *shown]))  # noqa: B010
    return method


@dataclass(frozen=True, eq=False)
class GenerationPlan:
    """What a request asks of a model.

    Attributes:
        prompts: Token ids of each item.
        sot_index: Where <|startoftranscript|> is in them.
        start_step: Where the last task token is, which starts the decoding.
        options: Of the search, whose hypotheses begin at that token.
        fixed_rules: What holds at every step.
        rules: What the histories say about the next token.
    """

    prompts: Sequence[Sequence[int]]
    sot_index: int
    start_step: int
    options: SearchOptions
    fixed_rules: FixedRules
    rules: Rules

    @property
    def sot_is_start(self) -> bool:
        """Whether <|startoftranscript|> starts the decoding."""
        return self.sot_index == self.start_step


@dataclass(frozen=True, eq=False)
class GenerationCall:
    """The arguments of a call, of the right types."""

    features: Features
    prompts: Sequence[Sequence[int]]
    options: SearchOptions

    @classmethod
    def of(
        cls, features: Any, prompts: Any, vocabulary: Vocabulary, options: Mapping[str, Any]
    ) -> GenerationCall:
        """From what a caller passed.

        Raises:
            TypeError: An argument of a wrong type, or an option of another name.
            ValueError: Features that are not of floating point.
        """
        batch = prompt_ids(prompts, vocabulary)
        checked = search_options(options)
        return cls(as_features(features), batch, checked)

    def with_own_features(self) -> GenerationCall:
        """The same, for a request that waits while the caller may change its memory."""
        if not isinstance(self.features, np.ndarray):
            return self
        return dataclasses.replace(self, features=self.features.copy())

    def plan(
        self, dimensions: Dimensions, vocabulary: Vocabulary, config: Mapping[str, Any]
    ) -> GenerationPlan | None:
        """What this asks of a model; None of an empty batch.

        Raises:
            ValueError: Prompts or options that do not work or do not belong together.
            RuntimeError: A prompt that is longer than the text context.
        """
        prompts, options = self.prompts, self.options
        check_batch("prompts", len(prompts), self.features)
        if not prompts:
            return None
        arguments.check_ids("prompts", prompts, vocabulary.size)
        sot_index, prompt_length = check_prompts(prompts, vocabulary)
        # The last task token starts the decoding; those before it only fill the KV cache.
        start_step = prompt_length - 1
        max_length = min(options.max_length // 2, options.max_length - start_step)
        prefix = max(map(len, prompts)) - prompt_length
        certain = start_step + max(0, min(prefix, max_length))
        arguments.check_positions(certain, dimensions.n_text_ctx, "the longest prompt")
        searching = dataclasses.replace(options, max_length=max_length)
        searching.validate(dimensions.n_vocab)
        timestamps = prompts[0][start_step] != vocabulary.no_timestamps
        suppressed = fixed_bans(
            options.suppress_tokens or (),
            config.get("suppress_ids", ()),
            vocabulary.size,
            vocabulary.no_timestamps if timestamps else None,
        )
        return GenerationPlan(
            prompts,
            sot_index,
            start_step,
            searching,
            FixedRules(
                np.array(suppressed, np.int32),
                options.repetition_penalty,
                vocabulary.timestamp_begin,
            ),
            self._rules(timestamps, vocabulary, config),
        )

    def _rules(self, timestamps: bool, vocabulary: Vocabulary, config: Mapping[str, Any]) -> Rules:
        options = self.options
        rule = None
        if timestamps:
            rule = Timestamps(
                eot=vocabulary.eot,
                first=vocabulary.timestamp_begin,
                end=vocabulary.size,
                max_initial=options.max_initial_timestamp_index,
            )
        return make_rules(
            repetition_penalty=options.repetition_penalty,
            no_repeat_ngram_size=options.no_repeat_ngram_size,
            suppress_begin=config.get("suppress_ids_begin", ()) if options.suppress_blank else (),
            timestamps=rule,
        )


def search_options(given: Mapping[str, Any]) -> SearchOptions:
    """The options by their names, with the seed of a new request.

    Raises:
        TypeError: An option of another name, or a value of a wrong type.
    """
    unknown = given.keys() - _OPTIONS.keys()
    if unknown:
        raise TypeError(f"generate() got an unexpected keyword argument {min(unknown)!r}")
    values = {name: read(name, given[name]) for name, read in _OPTIONS.items() if name in given}
    return SearchOptions(**values, seed=request_seed())


def prompt_ids(prompts: Any, vocabulary: Vocabulary) -> list[list[int]]:
    """Prompts as token ids; a token that the vocabulary lacks becomes <|endoftext|>.

    Args:
        prompts: A batch of sequences, all of token strings or all of token ids.
        vocabulary: Of the model.

    Raises:
        TypeError: Anything else.
    """
    batch = [
        arguments.sequence(f"prompts[{i}]", p)
        for i, p in enumerate(arguments.sequence("prompts", prompts))
    ]
    strings = [isinstance(token, str) for prompt in batch for token in prompt]
    if strings and all(strings):
        return [[vocabulary.to_id(token) for token in prompt] for prompt in batch]
    if any(strings):
        raise TypeError("prompts must be all token strings or all token ids, got both")
    return arguments.batch_of_ids("prompts", batch)


def check_prompts(prompts: Sequence[Sequence[int]], vocabulary: Vocabulary) -> tuple[int, int]:
    """Where the task tokens of a batch's prompts are (``check_prompts`` of whisper.cc).

    Returns:
        The position of <|startoftranscript|>, and the length of the prompt up to the last task
        token (<|notimestamps|>, language and the like); what follows is a forced prefix.

    Raises:
        ValueError: A prompt lacks <|startoftranscript|>, or these differ between the items.
    """
    places = [_task_tokens(prompt, vocabulary) for prompt in prompts]
    for start, end in places[1:]:
        if start != places[0][0]:
            raise ValueError(
                "The generate method currently requires the <|startoftranscript|> token to be at "
                "the same position in all batches. To work around this limitation, simply adapt "
                "the number of previous text tokens in each batch."
            )
        if end != places[0][1]:
            raise ValueError(
                "The generate method currently requires each batch to have the same number of "
                "task tokens after <|startoftranscript|>."
            )
    return places[0]


def _task_tokens(prompt: Sequence[int], vocabulary: Vocabulary) -> tuple[int, int]:
    if vocabulary.sot not in prompt:
        raise ValueError("<|startoftranscript|> token was not found in the prompt")
    start = end = list(prompt).index(vocabulary.sot)
    while end < len(prompt) and vocabulary.sot <= prompt[end] <= vocabulary.no_timestamps:
        end += 1
    return start, end
