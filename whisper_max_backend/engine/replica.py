"""Runs encode, generate, align and detect_language of one model, as ``WhisperReplica`` does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..system.cancellation import NEVER, StopFlag
from ..system.fork_and_exit import DroppedInside
from .api.alignment import AlignmentCall, alignment_heads
from .api.arrays import ArrayView, EncoderOutput
from .api.features import Features, check_features, encoded_frames, is_encoded
from .api.generation import GenerationCall
from .api.results import WhisperAlignmentResult, WhisperGenerationResult
from .checkpoint.vocabulary import Vocabulary
from .search.follow import Followed, FollowingSearch
from .search.protocol import Attention
from .search.run import run_search
from .serving.detected_windows import DetectedWindows
from .state.alignment_request import Path

if TYPE_CHECKING:
    from .serving.protocol import Model  # brings MAX, which is imported when a model is loaded


class Replica(DroppedInside):
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
        self._detected = DetectedWindows()

    def encode(
        self, features: Features, to_cpu: bool = False, stop: StopFlag = NEVER
    ) -> EncoderOutput:
        """Encode features ``[batch, n_mels, frames]``.

        Returns:
            float32 ``[batch, (frames + 1) // 2, n_audio_state]``, on the host with ``to_cpu``.

        Raises:
            ValueError: Features of another shape.
            Cancelled: It was stopped.
        """
        dimensions = self._model.dimensions
        check_features(features, dimensions)
        batch, _, frames = features.shape
        if batch == 0:
            empty = np.empty((0, encoded_frames(frames), dimensions.n_audio_state), np.float32)
            return EncoderOutput(empty)
        array = np.asarray(features, np.float32)
        output = self._detected.take(array)
        if output is None:
            encoded = self._model.encode(array, stop)
            may_repeat = batch == 1 and self._vocabulary.is_multilingual
            output = EncoderOutput(encoded, array.copy() if may_repeat else None)
        if to_cpu and output.device != "cpu":
            return EncoderOutput(np.asarray(output), output.features)
        return output

    def generate(
        self, call: GenerationCall, stop: StopFlag = NEVER
    ) -> list[WhisperGenerationResult]:
        """Transcribe features or encoder outputs, one result for each item of the batch.

        Raises:
            ValueError: Prompts, options or features that do not work or do not belong together.
            RuntimeError: A prompt that is longer than the text context.
            Cancelled: It was stopped.
        """
        vocabulary, decoder = self._vocabulary, self._model.decoder
        plan = call.plan(self._model.dimensions, vocabulary, self._config)
        if plan is None:
            return []
        prompts, start_step, options = plan.prompts, plan.start_step, plan.options
        encoded = self._encoded(call.features, stop)
        state = decoder.start(encoded, plan.fixed_rules, options.rows_per_item, stop)
        no_speech: Sequence[float] = [0.0] * len(prompts)
        watches = options.return_no_speech_prob and plan.sot_is_start
        try:
            if start_step > 0:
                tokens = np.array([prompt[:start_step] for prompt in prompts], np.int32)
                decoder.prefill(state, tokens)
                if options.return_no_speech_prob and not plan.sot_is_start:
                    no_speech = decoder.prefill_probability(
                        state, plan.sot_index, vocabulary.no_speech
                    ).tolist()
            hypotheses = run_search(
                decoder,
                state,
                [prompt[start_step:] for prompt in prompts],
                vocabulary.eot,
                options,
                plan.rules,
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

    def follow(
        self, call: GenerationCall, content: int, until: int, stop: StopFlag = NEVER
    ) -> Followed:
        """Transcribe the one item of a call greedily, until a token hangs on what is not there yet.

        Args:
            call: With one prompt.
            content: Encoder frames of the item that are not padding.
            until: The text ends before a token that attends to this frame or a later one.
            stop: Ends the work.

        Raises:
            ValueError: As `generate`.
            RuntimeError: As `generate`; or the model names no alignment heads.
            Cancelled: It was stopped.
        """
        plan = call.plan(self._model.dimensions, self._vocabulary, self._config)
        if plan is None or len(plan.prompts) != 1:
            raise ValueError("one item at a time is followed: give one prompt")
        heads = np.array(sorted(alignment_heads(self._config)), np.int32)
        decoder = self._model.decoder
        encoded = self._encoded(call.features, stop)
        state = decoder.start(encoded, plan.fixed_rules, stop=stop)
        (prompt,) = plan.prompts
        try:
            if plan.start_step > 0:
                decoder.prefill(state, np.array([prompt[: plan.start_step]], np.int32))
            return FollowingSearch(
                decoder,
                state,
                [prompt[plan.start_step :]],
                self._vocabulary.eot,
                plan.options,
                plan.rules,
                attention=Attention(heads, content, until),
            ).follow()
        finally:
            decoder.finish(state)

    def detect_language(
        self, features: Features, stop: StopFlag = NEVER
    ) -> list[list[tuple[str, float]]]:
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
        encoded = self._encoded(features, stop)
        if features.shape[0] == 0:
            return []
        if isinstance(features, EncoderOutput):
            self._detected.keep(features)
        probabilities = self._model.decoder.language_probabilities(encoded, vocabulary.sot, ids)
        tokens = [vocabulary.to_token(id_) for id_ in ids]
        return [
            sorted(zip(tokens, row, strict=True), key=lambda pair: -pair[1])
            for row in probabilities.tolist()
        ]

    def align(self, call: AlignmentCall, stop: StopFlag = NEVER) -> list[WhisperAlignmentResult]:
        """Align texts with the audio by the cross-attention of the alignment heads.

        Raises:
            ValueError: Arguments that do not belong together.
            RuntimeError: The model names no alignment heads, or a text is too long.
        """
        request = call.plan(self._model.dimensions, self._vocabulary, self._config)
        if request is None:
            return []
        aligned = self._model.decoder.align(self._encoded(call.features, stop), request)
        offset = request.start_length
        return [
            WhisperAlignmentResult(
                alignments=_path_in_time(path, len(text), int(length)),
                text_token_probs=row[offset : offset + len(text)].tolist(),
            )
            for path, row, text, length in zip(
                aligned.paths,
                aligned.probabilities,
                call.text_tokens,
                request.frames,
                strict=True,
            )
        ]

    def _encoded(self, features: Features, stop: StopFlag) -> Any:
        """Encoder output on this device, from features or from encoder output."""
        if not is_encoded(features, self._model.dimensions):
            features = self.encode(features, stop=stop)
        buffer = features.buffer if isinstance(features, ArrayView) else features
        return self._model.to_device(buffer)


def _path_in_time(path: Path, text_length: int, positions: int) -> Path:
    """The path of an alignment, with the cases in which the audio leaves no choice.

    Without a whole encoder position there is nothing to align with. With a single one the
    attention weights of all tokens are 1, and their normalisation divides nothing by nothing.
    """
    if positions > 1:
        return path
    return [(index, 0) for index in range(text_length + 1)] if positions == 1 else []
