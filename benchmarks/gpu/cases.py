"""What is timed: each case gives a row of the results."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from max.driver import Device

from benchmarks import timing
from benchmarks.gpu.device import Watch, median_seconds
from benchmarks.gpu.models import device_step_bytes, prompt_of, random_features, random_model
from benchmarks.gpu.peers import ask, median_seconds_of, transcribe
from benchmarks.new_process import output_of
from benchmarks.operations import encoder_operations
from benchmarks.speech import RATE
from whisper_max_backend.engine.api import devices
from whisper_max_backend.engine.api.generation import GenerationCall
from whisper_max_backend.engine.checkpoint.dimensions import Dimensions
from whisper_max_backend.engine.checkpoint.load import Checkpoint
from whisper_max_backend.engine.gpu.model import GPUModel
from whisper_max_backend.engine.replica import Replica
from whisper_max_backend.engine.search.options import SearchOptions
from whisper_max_backend.engine.search.protocol import Lookahead, Sampling, StepRequest
from whisper_max_backend.engine.search.rules import FixedRules, Rules
from whisper_max_backend.engine.serving.continuous_batching import SharedModel

STATES_PER_SECOND = 50
"""Of the encoder."""
CALLERS = 8
BATCH = 32
_POOL = "MODULAR_DEVICE_CONTEXT_MEMORY_MANAGER_"
POOLS: Mapping[str, Mapping[str, str]] = {
    "slowly growing": {f"{_POOL}CHUNK_PERCENT": "1"},
    "bounded": {devices.VARIABLE: "6"},
    "no": {f"{_POOL}SIZE": "0"},
}
"""How MAX is told to keep the device's memory: in smaller chunks, at most 6 GB, and not at all."""

Row = dict[str, Any]
Peers = Mapping[str, Mapping[str, Any]]
"""What peers took: seconds by case, or an error."""


@dataclass(frozen=True)
class Limits:
    """What the device was measured to do: operations and bytes a second."""

    operations: float
    bytes: float


class RandomModel:
    """A model of random weights on the device, made to say a fixed number of tokens."""

    def __init__(self, dimensions: Dimensions, compute_type: str, device: Device) -> None:
        self.dimensions = dimensions
        self.window = dimensions.n_audio_ctx / STATES_PER_SECOND  # seconds
        self.device = device
        self.compute_type = compute_type
        checkpoint = random_model(dimensions)
        runtime = GPUModel(checkpoint, device, compute_type)
        self.captured_graphs = runtime.decoder.captured_graphs
        self.runtime = SharedModel(runtime)
        self.replica = Replica(self.runtime, checkpoint.vocabulary, checkpoint.config)
        self.vocabulary = checkpoint.vocabulary

    def generate(
        self, windows: int, tokens: int, beams: int, features: np.ndarray | None = None
    ) -> int:
        """Encodes and decodes; returns how many tokens were said."""
        if features is None:
            features = random_features(self.dimensions, windows)
        options = SearchOptions(
            beam_size=beams,
            max_length=2 * tokens,
            suppress_blank=False,
            suppress_tokens=[self.vocabulary.eot],
        )
        prompts = [prompt_of(self.vocabulary)] * windows
        results = self.replica.generate(GenerationCall(features, prompts, options))
        said = [len(result.sequences_ids[0]) for result in results]
        assert said == [tokens] * windows, said
        return sum(said)


def window(model: RandomModel, name: str, peers: Peers, tokens: int = 100, rounds: int = 3) -> Row:
    """One window, beam 5."""
    features = random_features(model.dimensions, 1)
    seconds = median_seconds(lambda: model.generate(1, tokens, 5, features), model.device, rounds)
    kept = _weights(model.compute_type)
    row = _row(f"{name}{kept}, a window, {tokens} tokens, beam 5", seconds, model.window)
    return _beside(row, peers, "window")


def batched(
    model: RandomModel,
    name: str,
    peers: Peers,
    batch: int = BATCH,
    minutes: float = 10,
    tokens: int = 100,
) -> Row:
    """Many windows, `batch` at a time, greedy."""
    windows = round(minutes * 60 / model.window)
    sizes = [min(batch, windows - start) for start in range(0, windows, batch)]
    features = random_features(model.dimensions, batch)
    model.generate(sizes[0], tokens, 1, features[: sizes[0]])

    def call() -> None:
        for size in sizes:
            model.generate(size, tokens, 1, features[:size])

    seconds, watch = _watched(call)
    kept = _weights(model.compute_type)
    label = f"{name}{kept}, {minutes:g} minutes, batches of {batch}, {tokens} tokens a window"
    return _beside(_row(label, seconds, 60 * minutes, watch), peers, "batch", windows / batch)


def long_file(model: RandomModel, name: str, minutes: float = 5, tokens: int = 100) -> Row:
    """One window after another, beam 5: how busy the device is."""
    features = random_features(model.dimensions, 1)
    windows = round(minutes * 60 / model.window)
    model.generate(1, tokens, 5, features)

    def call() -> None:
        for _ in range(windows):
            model.generate(1, tokens, 5, features)

    seconds, watch = _watched(call)
    return _row(f"{name}, {minutes:g} minutes, beam 5", seconds, 60 * minutes, watch)


def encoder(model: RandomModel, name: str, limits: Limits, batch: int = 1) -> Row:
    """Windows encoded, against the matrix rate."""
    features = model.runtime.to_device(random_features(model.dimensions, batch))
    seconds = median_seconds(lambda: model.runtime.encode(features), model.device)
    operations = batch * encoder_operations(model.dimensions)
    row = _row(f"{name}, encoder, {batch} windows", seconds, batch * model.window)
    row["achieved_over_limit"] = operations / limits.operations / seconds
    return row


def step(
    model: RandomModel,
    name: str,
    limits: Limits,
    replay: bool = False,
    ahead: int = 1,
    beams: int = 5,
    steps: int = 37,
) -> Row:
    """A decoder step, against the bandwidth.

    With `replay` it is a captured device graph; `ahead` are made at once.
    """
    decoder = model.runtime.decoder
    usual, model.captured_graphs.wanted = model.captured_graphs.wanted, replay
    encoded = model.runtime.encode(random_features(model.dimensions, 1))
    state = decoder.start(encoded, FixedRules(), rows_per_item=beams)
    decoder.prefill(state, np.array([[model.vocabulary.sot] * 3], np.int32))
    state.reorder(np.zeros(beams, np.int32))
    idle = Rules().constraints([[]] * beams, [0] * beams)
    tokens, scores = np.full(beams, 5, np.int32), np.zeros(beams, np.float32)
    lookahead = Lookahead(
        ahead,
        np.ones(1, np.int32),
        np.tile(np.array([-1, 0], np.int32), (beams, 1)),
        model.vocabulary.eot,
        timed=True,
        summed=True,
    )
    request = StepRequest(tokens, scores, idle, beams, 2 * beams, Sampling(), lookahead=lookahead)

    def call() -> None:
        decoder.step(state, request)
        state.take_ahead([-1])  # no such step was made: all are forgotten

    seconds = statistics.median(timing.times(call, steps, warm_up=3)) / ahead
    decoder.finish(state)
    kept = _weights(model.compute_type)
    how = ", replayed" * replay + (f", {ahead} at once" if ahead > 1 else "")
    row = _row(f"{name}{kept}, decoder step, beam {beams}{how}", seconds, None)
    if replay:
        row["refused"] = not model.captured_graphs.wanted  # the log says why
    model.captured_graphs.wanted = usual and not row.get("refused", False)
    needed = device_step_bytes(model.dimensions, model.compute_type)
    row["achieved_over_limit"] = needed / limits.bytes / seconds
    return row


def memory(name: str, compute_type: str, on_cpu: bool, tokens: int, pool: str | None = None) -> Row:
    """What a model takes on the device that nobody else is on, measured in its own process.

    Args:
        name: Size of the model.
        compute_type: Of the model.
        on_cpu: Whether the CPU stands in for the device.
        tokens: Of a window.
        pool: One of `POOLS`, by name.
    """
    device = "cpu" if on_cpu else "gpu"
    printed = output_of(
        "benchmarks.gpu.memory",
        *(name, "--device", device, "--compute-type", compute_type, "--tokens", str(tokens)),
        variables=POOLS[pool] if pool else None,
    )
    label = f"{name}{_weights(compute_type)}, device memory of a window, beam 5"
    row = _row(f"{label}, {pool} pool" if pool else label, None, None)
    return {**row, **json.loads(printed.strip().splitlines()[-1])}


def callers(model: RandomModel, name: str, tokens: int = 100) -> Row:
    """Several callers at once against one after another."""
    features = random_features(model.dimensions, 1)

    def call(_: int) -> int:
        return model.generate(1, tokens, 5, features)

    call(0)
    one = timing.once(lambda: list(map(call, range(CALLERS))))
    with ThreadPoolExecutor(CALLERS) as pool:
        seconds, watch = _watched(lambda: list(pool.map(call, range(CALLERS))))
    row = _row(f"{name}, {CALLERS} callers, a window each", seconds, CALLERS * model.window, watch)
    row["throughput_over_one_caller"] = one / seconds
    return row


def transcription(
    folder: Path, audio: Path, device: str, compute_type: str, minutes: float
) -> Iterator[Row]:
    """A real model on real speech, beam 5, end to end: beside faster-whisper, and a long file."""
    from faster_whisper.audio import decode_audio

    from whisper_max_backend import WhisperModel

    given = ["--model", str(folder), "--audio", str(audio), "--device", device]
    peers = {"faster_whisper": ask("faster_whisper", *given)}
    samples = decode_audio(str(audio))
    short = len(samples) / RATE
    model = WhisperModel(str(folder), device=device, compute_type=compute_type)
    seconds = median_seconds_of(lambda: transcribe(model, samples), rounds=5)
    row = _row(f"real weights, {short:.0f} s, beam 5", seconds, short)
    yield _beside(row, peers, "transcription")
    long = np.resize(samples, int(minutes * 60 * RATE))
    seconds, watch = _watched(lambda: transcribe(model, long))
    yield _row(f"real weights, {minutes:g} minutes, beam 5", seconds, 60 * minutes, watch)


def parity(checkpoint: Checkpoint, name: str, compute_type: str, device: Device) -> Iterator[Row]:
    """Tokens of the device against the CPU's in float32, with the same weights, on random audio."""
    from whisper_max_backend.engine.cpu.model import CPUModel

    features = random_features(checkpoint.dimensions, 3)
    v = checkpoint.vocabulary
    runtimes: Sequence[Any] = (CPUModel(checkpoint), GPUModel(checkpoint, device, compute_type))
    for beams in (1, 5):
        found = []
        for runtime in runtimes:
            replica = Replica(runtime, v, checkpoint.config)
            options = SearchOptions(
                beam_size=beams,
                repetition_penalty=1.1,
                no_repeat_ngram_size=3,
                max_length=96,
                return_scores=True,
                return_no_speech_prob=True,
            )
            results = replica.generate(GenerationCall(features, [[v.sot]] * 3, options))
            found.append([result.sequences_ids for result in results])
        yield {"case": f"{name}, {compute_type}, beam {beams}", "same_tokens": found[0] == found[1]}


def _weights(compute_type: str) -> str:
    """What a case's name says of the decoder's weights, where they are int8."""
    return ", int8 weights" if compute_type.startswith("int8_") else ""


def _watched(call: Callable[[], Any]) -> tuple[float, Watch]:
    """Seconds of one call, and what the device did meanwhile."""
    with Watch() as watch:
        seconds = timing.once(call)
    return seconds, watch


def _beside(row: Row, peers: Peers, case: str, times: float = 1) -> Row:
    """With the ratio to each peer's seconds for the case, `times` over; or why there is none."""
    for peer, answer in peers.items():
        row[f"ratio_to_{peer}"] = answer[case] * times / row["seconds"] if case in answer else None
        if "error" in answer:
            row[peer] = f"cannot run: {answer['error']}"
    return row


def _row(case: str, seconds: float | None, audio: float | None, watch: Watch | None = None) -> Row:
    return {
        "case": case,
        "seconds": seconds,
        "rtf": seconds / audio if seconds and audio else None,
        "ratio_to_faster_whisper": None,
        "ratio_to_transformers": None,
        "utilisation": watch.utilisation if watch else None,
        "peak_memory_mib": watch.peak_mib if watch else None,
        "achieved_over_limit": None,
    }
