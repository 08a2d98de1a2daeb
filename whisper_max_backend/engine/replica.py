"""What a worker does for a request: the counterpart of CTranslate2's ``WhisperReplica``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from .api import arguments
from .api.arguments import Features
from .api.arrays import ArrayView, EncoderOutput
from .api.results import WhisperAlignmentResult, WhisperGenerationResult
from .checkpoint.vocabulary import Vocabulary
from .search.decode import decode
from .search.options import DecodingOptions
from .search.rules import FixedRules, Rules, Timestamps, fixed_bans, make_rules
from .state.alignment import AlignmentRequest, Path

if TYPE_CHECKING:
    from .serving.model import Model  # brings MAX, which is imported when a model is loaded


@dataclass(frozen=True)
class GenerationOptions:
    """Options of a request; names, meaning and defaults are those of ``Whisper.generate``."""

    beam_size: int = 5
    patience: float = 1
    num_hypotheses: int = 1
    length_penalty: float = 1
    repetition_penalty: float = 1
    no_repeat_ngram_size: int = 0
    max_length: int = 448
    return_scores: bool = False
    return_logits_vocab: bool = False
    return_no_speech_prob: bool = False
    max_initial_timestamp_index: int = 50
    suppress_blank: bool = True
    suppress_tokens: Sequence[int] = (-1,)
    sampling_topk: int = 1
    sampling_temperature: float = 1
    seed: int = 0


class Replica:
    """A model on one device. Requests may run at the same time, each has its own state."""

    def __init__(
        self,
        model: Model,
        vocabulary: Vocabulary,
        config: Mapping[str, Any],
    ) -> None:
        """Serve requests with a loaded model.

        Args:
            model: On its device.
            vocabulary: Of the model.
            config: The model's ``config.json``.
        """
        self._model = model
        self._vocabulary = vocabulary
        self._config = config

    def encode(self, features: Features, to_cpu: bool = False) -> EncoderOutput:
        """Encode features ``[batch, n_mels, frames]``.

        Returns:
            float32 ``[batch, (frames + 1) // 2, n_audio_state]``, on the host with ``to_cpu``.

        Raises:
            ValueError: Features of another shape.
        """
        dimensions = self._model.dimensions
        arguments.check_features(features, dimensions)
        batch, _, frames = features.shape
        if batch == 0:
            empty = np.empty((0, (frames + 1) // 2, dimensions.n_audio_state), np.float32)
            return EncoderOutput(empty)
        output = EncoderOutput(self._model.encode(np.asarray(features, dtype=np.float32)))
        if to_cpu and output.device != "cpu":
            return EncoderOutput(np.asarray(output))
        return output

    def generate(
        self, features: Features, prompts: Sequence[Sequence[int]], options: GenerationOptions
    ) -> list[WhisperGenerationResult]:
        """Transcribe features or encoder outputs, one result for each item of the batch.

        Args:
            features: ``[batch, n_mels, frames]``, or what `encode` returned.
            prompts: Token ids, one sequence for each item.
            options: See ``Whisper.generate``.

        Raises:
            ValueError: Prompts, options or features that do not work or do not belong together.
            RuntimeError: A prompt that is longer than the text context.
        """
        arguments.check_batch("prompts", len(prompts), features)
        if not prompts:
            return []
        vocabulary, decoder = self._vocabulary, self._model.decoder
        arguments.check_ids("prompts", prompts, vocabulary.size)
        sot_index, prompt_length = arguments.check_prompts(prompts, vocabulary)

        # The last task token starts the decoding; those before it only fill the caches.
        start_step = prompt_length - 1
        sot_is_start = sot_index == start_step
        timestamps = prompts[0][start_step] != vocabulary.no_timestamps
        decoding = self._decoding_options(options, start_step)
        n_text_ctx = self._model.dimensions.n_text_ctx
        prefix = max(map(len, prompts)) - prompt_length
        certain = start_step + max(0, min(prefix, decoding.max_length))
        arguments.check_positions(certain, n_text_ctx, "the longest prompt")
        decoding.validate(decoder.n_vocab)
        suppressed = fixed_bans(
            options.suppress_tokens,
            self._config.get("suppress_ids", ()),
            vocabulary.size,
            vocabulary.no_timestamps if timestamps else None,
        )

        state = decoder.start(
            self._encoded(features),
            FixedRules(
                np.array(suppressed, np.int32),
                options.repetition_penalty,
                vocabulary.timestamp_begin,
            ),
            rows_per_item=decoding.beam_size if decoding.beam_size > 1 else decoding.num_hypotheses,
        )
        no_speech: Sequence[float] = [0.0] * len(prompts)
        watches = options.return_no_speech_prob and sot_is_start
        try:
            if start_step > 0:
                tokens = np.array([prompt[:start_step] for prompt in prompts], np.int32)
                decoder.prefill(state, tokens)
                if options.return_no_speech_prob and not sot_is_start:
                    no_speech = decoder.prefill_probability(
                        state, sot_index, vocabulary.no_speech
                    ).tolist()
            hypotheses = decode(
                decoder,
                state,
                [prompt[start_step:] for prompt in prompts],
                vocabulary.eot,
                decoding,
                self._rules(options, timestamps),
                watch=vocabulary.no_speech if watches else -1,
            )
        finally:
            decoder.finish(state)
        if watches:
            no_speech = [item.watched for item in hypotheses]
        return [
            WhisperGenerationResult(
                sequences=[[vocabulary.to_token(id_) for id_ in ids] for ids in item.sequences],
                sequences_ids=item.sequences,
                scores=item.scores,
                logits=[[ArrayView(step) for step in steps] for steps in item.logits],
                no_speech_prob=probability,
            )
            for item, probability in zip(hypotheses, no_speech, strict=True)
        ]

    def detect_language(self, features: Features) -> list[list[tuple[str, float]]]:
        """For each item, the languages and their probabilities, the most probable first.

        Raises:
            RuntimeError: The model is not multilingual.
        """
        vocabulary = self._vocabulary
        if not vocabulary.is_multilingual:
            raise RuntimeError("detect_language can only be called on multilingual models")
        ids = list(self._config.get("lang_ids", ()))
        if not ids:
            raise RuntimeError(
                "The model configuration does not contain the field 'lang_ids' which lists the "
                "language tokens; convert this model again"
            )
        encoded = self._encoded(features)
        if features.shape[0] == 0:
            return []
        probabilities = self._model.decoder.language_probabilities(encoded, vocabulary.sot, ids)
        tokens = [vocabulary.to_token(id_) for id_ in ids]
        return [
            sorted(zip(tokens, row, strict=True), key=lambda pair: -pair[1])
            for row in probabilities.tolist()
        ]

    def align(
        self,
        features: Features,
        start_sequence: Sequence[int],
        text_tokens: Sequence[Sequence[int]],
        num_frames: Sequence[int],
        median_filter_width: int,
    ) -> list[WhisperAlignmentResult]:
        """Align texts with the audio by the cross-attention of the alignment heads.

        Args:
            features: ``[batch, n_mels, frames]``, or what `encode` returned.
            start_sequence: What precedes the texts, <|notimestamps|> left out.
            text_tokens: The text of each item.
            num_frames: Feature frames of each item that are not padding.
            median_filter_width: Positions in the filter over time.

        Raises:
            ValueError: Arguments that do not belong together.
            RuntimeError: The model names no alignment heads, or a text is too long.
        """
        arguments.check_batch("text_tokens", len(text_tokens), features)
        if not text_tokens:
            return []
        if len(num_frames) != len(text_tokens):
            raise ValueError(
                f"Invalid batch size for argument num_frames: {len(num_frames)} instead of "
                f"{len(text_tokens)}"
            )
        if median_filter_width == 0:
            raise ValueError("median_filter_width must be > 0; pass 1 for no filter")
        heads = self._config.get("alignment_heads")
        if heads is None:
            raise RuntimeError(
                "The model configuration does not contain the field 'alignment_heads' which lists "
                "the cross-attention heads that are highly correlated to the word-level timing; "
                "convert this model again with a current converter"
            )
        if not heads:
            raise ValueError(
                "'alignment_heads' in config.json is empty; name the heads, or remove it"
            )
        vocabulary = self._vocabulary
        arguments.check_ids("start_sequence", [start_sequence], vocabulary.size)
        arguments.check_ids("text_tokens", text_tokens, vocabulary.size)
        rows = [
            [*start_sequence, vocabulary.no_timestamps, *text, vocabulary.eot]
            for text in text_tokens
        ]
        lengths = np.array([len(row) for row in rows], np.int32)
        longest = int(lengths.max())
        n_text_ctx = self._model.dimensions.n_text_ctx
        arguments.check_positions(longest, n_text_ctx, "the longest text with what frames it")

        encoded = self._encoded(features)
        frames = np.minimum(np.array(num_frames) // 2, encoded.shape[1]).astype(np.int32)
        request = AlignmentRequest(
            np.array([row + [0] * (longest - len(row)) for row in rows], np.int32),
            lengths,
            frames,
            [(int(layer), int(head)) for layer, head in heads],
            len(start_sequence),
            median_filter_width,
            vocabulary.eot,
        )
        aligned = self._model.decoder.align(encoded, request)
        offset = len(start_sequence)
        return [
            WhisperAlignmentResult(
                alignments=_path_in_time(path, len(text), int(length)),
                text_token_probs=row[offset : offset + len(text)].tolist(),
            )
            for path, row, text, length in zip(
                aligned.paths, aligned.probabilities, text_tokens, frames, strict=True
            )
        ]

    def _encoded(self, features: Features) -> Any:
        """Encoder output on this device, from features or from encoder output."""
        if not arguments.is_encoded(features, self._model.dimensions):
            features = self.encode(features)
        buffer = features.buffer if isinstance(features, ArrayView) else features
        return self._model.to_device(buffer)

    def _decoding_options(self, options: GenerationOptions, start_step: int) -> DecodingOptions:
        return DecodingOptions(
            beam_size=options.beam_size,
            patience=options.patience,
            num_hypotheses=options.num_hypotheses,
            length_penalty=options.length_penalty,
            repetition_penalty=options.repetition_penalty,
            max_length=min(options.max_length // 2, options.max_length - start_step),
            sampling_topk=options.sampling_topk,
            sampling_temperature=options.sampling_temperature,
            return_scores=options.return_scores,
            return_logits_vocab=options.return_logits_vocab,
            seed=options.seed,
        )

    def _rules(self, options: GenerationOptions, timestamps: bool) -> Rules:
        vocabulary = self._vocabulary
        rule = None
        if timestamps:
            rule = Timestamps(
                eot=vocabulary.eot,
                first=vocabulary.timestamp_begin,
                end=vocabulary.size,
                max_initial=options.max_initial_timestamp_index,
            )
        begin = self._config.get("suppress_ids_begin", ()) if options.suppress_blank else ()
        return make_rules(
            repetition_penalty=options.repetition_penalty,
            no_repeat_ngram_size=options.no_repeat_ngram_size,
            suppress_begin=begin,
            timestamps=rule,
        )


def _path_in_time(path: Path, text_length: int, positions: int) -> Path:
    """The path of an alignment, with the cases in which the audio leaves no choice.

    Without a whole encoder position there is nothing to align with. With a single one the
    attention weights of all tokens are 1, and their normalisation divides nothing by nothing.
    """
    if positions > 1:
        return path
    return [(index, 0) for index in range(text_length + 1)] if positions == 1 else []
