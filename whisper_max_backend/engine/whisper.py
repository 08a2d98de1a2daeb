"""The engine: the surface of ``ctranslate2.models.Whisper`` over MAX."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..system.cpu_features import require_processor
from ..system.fork_and_exit import check_not_forked, inside_max
from .api import arguments
from .api.alignment import AlignmentCall
from .api.arrays import EncoderOutput
from .api.compute_types import requested_for, select
from .api.devices import device_indices, open_gpu, resolve_device
from .api.features import as_features, batch_size
from .api.generation import GenerationCall, takes_search_options
from .api.results import (
    WhisperAlignmentResult,
    WhisperGenerationResult,
    WhisperGenerationResultAsync,
)
from .checkpoint.files import file_contents
from .checkpoint.load import Checkpoint, load_checkpoint
from .replica import Replica
from .search.follow import Followed
from .serving.workers import REQUESTS_AT_ONCE, Workers

if TYPE_CHECKING:
    from .serving.protocol import DeviceModel, Model


class Whisper:
    """Implements the Whisper speech recognition model published by OpenAI.

    The methods may be called from several threads at once. Each request is run by one of
    ``num_workers`` workers; others wait in a queue. A worker on the CPU runs one request at a
    time, a worker on a GPU several, whose decoder steps are executed together.
    """

    def __init__(
        self,
        model_path: str | os.PathLike[str],
        device: str = "cpu",
        *,
        device_index: int | Sequence[int] = 0,
        compute_type: str | Mapping[str, str] = "default",
        inter_threads: int = 1,
        intra_threads: int = 0,
        max_queued_batches: int = 0,
        flash_attention: bool = False,
        tensor_parallel: bool = False,
        files: Mapping[str, Any] | None = None,
    ) -> None:
        """Load a Whisper model.

        Args:
            model_path: Path to the model directory.
            device: Device to use: cpu, cuda (or gpu), auto.
            device_index: Device IDs where to place this model on.
            compute_type: Model computation type, or a dictionary mapping a device name to it:
                default, auto, int8, int8_float32, int8_float16, int8_bfloat16, int16, float16,
                bfloat16, float32.
            inter_threads: Number of workers of each device.
            intra_threads: Number of threads that compute (0 to use a default value).
            max_queued_batches: How many requests may wait for a worker (-1 for unlimited, 0 for
                an automatic value). When the queue is full, further requests block until there
                is room.
            flash_attention: Accepted without effect: the engine chooses its attention kernels.
            tensor_parallel: Must be false: a model is not split between devices.
            files: Model files in memory: a dictionary mapping file names to their content, as
                bytes or file-like objects. If this is set, ``model_path`` only names the model.

        Raises:
            TypeError: An argument of a wrong type.
            ValueError: An unknown device or compute type, or one that is not supported here.
            RuntimeError: The model cannot be read, there is no GPU, MAX cannot run on this
                processor, or this process was forked from one that has loaded a model.
        """
        require_processor()
        check_not_forked()
        self._path = os.fspath(model_path)
        # Read once, so that the model can be loaded again.
        self._files = None if files is None else file_contents(files)
        self._device = resolve_device(device)
        self._device_index = device_indices(device_index, self._device)
        requested_for(compute_type, device)  # a wrong name is told before anything is loaded
        self._workers_per_device = arguments.count("inter_threads", inter_threads)
        if self._workers_per_device == 0:
            raise ValueError("inter_threads must be > 0: a model without workers answers nothing")
        self._threads = arguments.count("intra_threads", intra_threads)
        max_queued = arguments.integer("max_queued_batches", max_queued_batches)
        arguments.check_loading_options(tensor_parallel, flash_attention)

        self._loading = threading.Lock()
        self._cached: Checkpoint | None = None
        checkpoint = load_checkpoint(self._path, self._files)
        self._dimensions = checkpoint.dimensions
        self._vocabulary = checkpoint.vocabulary
        self._precision = select(compute_type, checkpoint.dtype, device, self._device)
        at_once = REQUESTS_AT_ONCE if self._shares_steps else 1
        self._workers = Workers(self._replicas(checkpoint), max_queued, at_once)

    def __reduce_ex__(self, protocol: Any) -> Any:
        raise TypeError(
            f"cannot pickle a loaded model ({self._path!r}): have the other process load it, from "
            "its path"
        )

    @property
    def is_multilingual(self) -> bool:
        """Whether this model knows other languages than English."""
        return self._vocabulary.is_multilingual

    @property
    def n_mels(self) -> int:
        """Number of mel bands of the input features."""
        return self._dimensions.n_mels

    @property
    def num_languages(self) -> int:
        """The number of languages supported."""
        return self._vocabulary.num_languages

    @property
    def device(self) -> str:
        """Device this model is running on: ``"cpu"`` or ``"cuda"``."""
        return self._device

    @property
    def device_index(self) -> list[int]:
        """List of device IDs where this model is running on."""
        return list(self._device_index)

    @property
    def intra_threads(self) -> int:
        """Number of threads that compute, as it was asked for: 0 for one a core."""
        return self._threads

    @property
    def compute_type(self) -> str:
        """Computation type that the model runs in."""
        return self._precision.running

    @property
    def num_workers(self) -> int:
        """Number of model workers backing this instance."""
        return self._workers.count

    @property
    def num_queued_batches(self) -> int:
        """Number of batches waiting to be processed."""
        return self._workers.queued

    @property
    def num_active_batches(self) -> int:
        """Number of batches waiting to be processed or currently processed."""
        return self._workers.active

    @property
    def tensor_parallel(self) -> bool:
        """Whether the model is split between devices: never."""
        return False

    @property
    def model_is_loaded(self) -> bool:
        """Whether the model is loaded on the initial device and ready to be used."""
        return self._workers.attached

    def encode(self, features: Any, to_cpu: bool = False) -> EncoderOutput:
        """Encode the input features.

        Args:
            features: Mel spectrogram of the audio, a float array ``[batch, n_mels, frames]``.
            to_cpu: Copy the output to the CPU before returning it.

        Returns:
            The encoder output ``[batch, (frames + 1) // 2, state]``.

        Raises:
            TypeError, ValueError: Not an array, or not of this shape.
            RuntimeError: The model is unloaded.
        """
        array = as_features(features)
        return self._workers.run(lambda replica, stop: replica.encode(array, to_cpu, stop))

    @takes_search_options
    def generate(
        self,
        features: Any,
        prompts: Sequence[Sequence[str]] | Sequence[Sequence[int]],
        *,
        asynchronous: bool = False,
        **options: Any,
    ) -> list[WhisperGenerationResult] | list[WhisperGenerationResultAsync]:
        """Encode the input features and generate from the given prompts.

        Args:
            features: Mel spectrogram ``[batch, n_mels, frames]``, or what `encode` returned.
            prompts: Batch of initial string tokens or token IDs.
            asynchronous: Return at once, with objects that have ``result()`` and ``done()``.
            options: See `SearchOptions`, which names and explains them: ``beam_size``,
                ``patience``, ``sampling_temperature`` and so on, with the reference's defaults.

        Returns:
            One result, or one asynchronous result, for each item of the batch.

        Raises:
            TypeError: An argument of a wrong type.
            ValueError: Prompts, options or features that do not work or do not belong together.
            RuntimeError: The model is unloaded, or a prompt is longer than the text context.
        """
        call = GenerationCall.of(features, prompts, self._vocabulary, options)
        items = batch_size(call.features)
        if not asynchronous or not items:  # without items, no result could bring an error
            return self._workers.run(lambda replica, stop: replica.generate(call, stop))
        own = call.with_own_features()
        future = self._workers.post(lambda replica, stop: replica.generate(own, stop))
        return [WhisperGenerationResultAsync(future, item) for item in range(items)]

    @takes_search_options
    def follow(
        self,
        features: Any,
        prompt: Sequence[str] | Sequence[int],
        *,
        content: int,
        until: int,
        **options: Any,
    ) -> Followed:
        """Transcribe live speech greedily, until a token hangs on audio that is not there yet.

        Args:
            features: Mel spectrogram ``[1, n_mels, frames]``, or what `encode` returned.
            prompt: Initial string tokens or token IDs.
            content: Encoder frames, of 20 ms, that are not padding.
            until: The text ends before a token that attends to this frame or a later one.
            options: See `SearchOptions`; one beam, without sampling.

        Raises:
            TypeError, ValueError, RuntimeError: As `generate`.
            RuntimeError: The model names no alignment heads.
        """
        options = {**options, "beam_size": 1}
        call = GenerationCall.of(features, [prompt], self._vocabulary, options)
        return self._workers.run(lambda replica, stop: replica.follow(call, content, until, stop))

    def detect_language(self, features: Any) -> list[list[tuple[str, float]]]:
        """Return the probability of each language.

        Args:
            features: Mel spectrogram ``[batch, n_mels, frames]``, or what `encode` returned.

        Returns:
            For each item, pairs ``("<|en|>", probability)`` from best to worst.

        Raises:
            TypeError, ValueError: Not an array, or not of this shape.
            RuntimeError: The model is not multilingual, or unloaded.
        """
        array = as_features(features)
        return self._workers.run(lambda replica, stop: replica.detect_language(array, stop))

    def align(
        self,
        features: Any,
        start_sequence: Sequence[int],
        text_tokens: Sequence[Sequence[int]],
        num_frames: int | Sequence[int],
        *,
        median_filter_width: int = 7,
    ) -> list[WhisperAlignmentResult]:
        """Compute the alignments between the text tokens and the audio.

        Args:
            features: Mel spectrogram ``[batch, n_mels, frames]``, or what `encode` returned.
            start_sequence: The start sequence tokens, without <|notimestamps|>.
            text_tokens: Batch of text tokens to align.
            num_frames: Number of non padding frames in the features, of all items or of each.
            median_filter_width: Width of the median filter kernel.

        Returns:
            One alignment for each item of the batch.

        Raises:
            TypeError: An argument of a wrong type.
            ValueError: Arguments that do not belong together.
            RuntimeError: The model names no alignment heads, or is unloaded, or a text is longer
                than the text context.
        """
        call = AlignmentCall.of(
            features, start_sequence, text_tokens, num_frames, median_filter_width
        )
        return self._workers.run(lambda replica, stop: replica.align(call, stop))

    def unload_model(self, to_cpu: bool = False) -> None:
        """Unload the model, but keep what is needed to load it again.

        Nothing is done while requests are active.

        Args:
            to_cpu: Keep the model in the memory of the CPU.
        """
        if to_cpu and self._device == "cpu":
            return
        with self._loading:
            if self._workers.attached and not self._workers.detach():
                return
            if not to_cpu:
                self._cached = None
            elif self._cached is None:
                self._cached = load_checkpoint(self._path, self._files).in_memory()

    def load_model(self, keep_cache: bool = False) -> None:
        """Load the model back to the initial device.

        Args:
            keep_cache: Keep the model in the memory of the CPU too, if it is there.

        Raises:
            RuntimeError: The model cannot be read any more.
        """
        with self._loading:
            if self._workers.attached:
                return
            checkpoint = self._cached or load_checkpoint(self._path, self._files)
            self._workers.attach(self._replicas(checkpoint))
            if not keep_cache:
                self._cached = None

    def _replicas(self, checkpoint: Checkpoint) -> list[Replica]:
        """One entry for each worker; the workers of a device share its model."""
        with inside_max:
            loaded = {i: self._load_device_model(checkpoint, i) for i in self._device_index}
        models: Mapping[int, Model] = loaded
        if self._shares_steps:
            from .serving.continuous_batching import SharedModel

            models = {index: SharedModel(model) for index, model in loaded.items()}
        self.log_mel = models[self._device_index[0]].log_mel
        replicas = {
            index: Replica(model, checkpoint.vocabulary, checkpoint.config)
            for index, model in models.items()
        }
        return [replicas[index] for index in self._device_index] * self._workers_per_device

    @property
    def _shares_steps(self) -> bool:
        """Whether requests of several threads are decoded together.

        On a GPU they are: a step takes the time of reading the weights, whoever they are read
        for. On a CPU, products for some rows more take that much longer and the encoder takes
        most of the time, so nothing is gained over one request after another, which are answered
        sooner on average; and `inter_threads` and `intra_threads` say how its cores are used.
        """
        return self._device != "cpu"

    def _load_device_model(self, checkpoint: Checkpoint, device_index: int) -> DeviceModel:
        """Place the model on one device."""
        # MAX is imported when a model is loaded
        if self._device != "cpu":
            from .gpu.model import GPUModel

            return GPUModel(checkpoint, open_gpu(device_index), self._precision.running)
        from .cpu.model import CPUModel

        return CPUModel(checkpoint, self._precision.running, self._threads)
