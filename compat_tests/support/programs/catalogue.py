"""The programs: where each comes from, and how it is called.

A command is what follows `whisper-max run`. In it `{model}` is a CTranslate2 directory, `{audio}` a
WAV file, `{compute_type}` a precision, `{scripts}` the folder of the scripts beside this file, and
`{port}` a free port of the loopback interface for a server. What it prints and the files that it
leaves in the working directory are its output.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Mode:
    """One way of using a program.

    Attributes:
        command: The program; one that ends by itself, unless there is a client.
        client: A script that asks the server that `command` starts, and prints its answer.
        config: Contents of the file `config.yaml` in the working directory.
    """

    command: str
    client: str | None = None
    config: str | None = None


@dataclass(frozen=True)
class Program:
    """A program on PyPI.

    Attributes:
        requirement: Name and version.
        modes: By name, the ways in which it is used here.
        also: What else has to be installed for them.
        alone: Install without dependencies: what is used here does without PyTorch.
        multilingual: It detects the language, which an English model cannot.
    """

    requirement: str
    modes: dict[str, Mode]
    also: tuple[str, ...] = ()
    alone: bool = False
    multilingual: bool = False

    @property
    def name(self) -> str:
        return self.requirement.partition("==")[0]

    @property
    def version(self) -> str:
        return self.requirement.partition("==")[2]


_CTRANSLATE2 = (
    "whisper-ctranslate2 {audio} --model_directory {model} --device cpu --language en "
    "--compute_type {compute_type} --output_format all --output_dir out --word_timestamps True"
)
_SERVER_CONFIG = (
    "models: [{{name: it, path: '{model}', batch_size: %d, "
    "model_options: {{device: cpu, compute_type: {compute_type}}}}}]\n"
)
_SERVER = "faster-whisper-server --config config.yaml --host 127.0.0.1 --port {port}"

PROGRAMS = (
    Program(
        "whisper-ctranslate2==0.5.8",
        {
            "plain": Mode(_CTRANSLATE2),
            "batched": Mode(f"{_CTRANSLATE2} --batched True --batch_size 2"),
        },
    ),
    Program(
        "SpeechRecognition==3.17.0",
        {"plain": Mode("{scripts}/with_speech_recognition.py {model} {audio} {compute_type}")},
        also=("soundfile==0.14.0",),
    ),
    Program(
        "wyoming-faster-whisper==3.8.1",
        {
            "server": Mode(
                "-m wyoming_faster_whisper --uri tcp://127.0.0.1:{port} --model {model} "
                "--data-dir . --language en --stt-library faster-whisper --local-files-only "
                "--compute-type {compute_type}",
                client="{scripts}/ask_wyoming.py {port} {audio}",
            )
        },
    ),
    Program(
        "ovos-stt-plugin-fasterwhisper==0.4.0",
        {"plain": Mode("{scripts}/with_ovos.py {model} {audio} {compute_type}")},
        multilingual=True,
    ),
    Program(
        "faster-whisper-server==0.0.3",
        {
            "server": Mode(
                _SERVER,
                client="{scripts}/ask_http.py {port} {audio}",
                config=_SERVER_CONFIG % 1,
            ),
            "server, batched": Mode(
                _SERVER,
                client="{scripts}/ask_http.py {port} {audio}",
                config=_SERVER_CONFIG % 2,
            ),
        },
    ),
    Program(
        "RealtimeSTT==1.1.2",
        {
            "plain": Mode("{scripts}/with_realtimestt.py {model} {audio} {compute_type} 0"),
            "batched": Mode("{scripts}/with_realtimestt.py {model} {audio} {compute_type} 2"),
        },
        alone=True,
    ),
    Program(
        "whisper-live==0.10.0",
        {"plain": Mode("{scripts}/with_whisperlive.py {model} {audio} {compute_type}")},
        alone=True,
    ),
    Program(
        "whisperx==3.8.6",
        {"batched": Mode("{scripts}/with_whisperx.py {model} {audio} {compute_type}")},
        alone=True,
    ),
)

WITH_TORCH = (
    Program(
        "stable-ts==2.19.1",
        {"plain": Mode("{scripts}/with_stable_ts.py {model} {audio} {compute_type}")},
    ),
    Program(
        "whisperx==3.8.6",
        {
            "whole": Mode(
                "whisperx {audio} --model {model} --device cpu --compute_type {compute_type} "
                "--language en --no_align --output_format all --output_dir out --log-level error"
            )
        },
    ),
)
"""Heavier ones: each needs gigabytes, and a PyTorch of its own."""

LIVE = (
    Program(
        "RealtimeSTT==1.1.2",
        {"engine": Mode("{scripts}/live_with_realtimestt.py {model} {audio}")},
        alone=True,
    ),
)
"""Those that take an adapter of `whisper_max_backend.adapters`."""

LIVE_WITH_TORCH = (
    Program(
        "RealtimeSTT==1.1.2",
        {"recorder": Mode("{scripts}/live_with_recorder.py {model} {audio}")},
        alone=True,  # PyAudio, for microphones, would have to be compiled
    ),
    Program(
        "whisperlivekit==0.2.26",
        {"pipeline": Mode("{scripts}/live_with_whisperlivekit.py {model} {audio}")},
        also=(
            *("halo==0.0.31", "colorama==0.4.6", "scipy==1.17.1", "websocket-client==1.9.0"),
            *(
                "websockets==16.0",
                "webrtcvad-wheels==2.0.14",
                "silero-vad==6.2.3",
            ),  # of RealtimeSTT
        ),
    ),
)
"""They share an environment with a PyTorch."""
