"""``python -m benchmarks COMMAND``: the one door to all benchmarks."""

from __future__ import annotations

from importlib import import_module

import click

COMMANDS = {
    "cpu": (
        "benchmarks.cpu.command",
        "Time every stage and whole transcriptions on the CPU, beside stock faster-whisper.",
    ),
    "gpu": (
        "benchmarks.gpu.command",
        "Check every GPU kernel and the tokens, then time models on the GPU.",
    ),
    "accuracy": (
        "benchmarks.accuracy.command",
        "Count the word errors of every precision on real speech.",
    ),
    "long": ("benchmarks.long", "Transcribe hours of audio and watch time and memory."),
    "live": ("benchmarks.live.command", "Play speech to live transcription by a simulated clock."),
    "streams": (
        "benchmarks.streams",
        "Play live streams at once, as many as one model keeps up with.",
    ),
    "hours": ("benchmarks.hours", "Transcribe hours of a live stream and watch memory."),
    "many": ("benchmarks.many", "Transcribe many recordings at once, and one after another."),
    "requests": (
        "benchmarks.requests",
        "Time the short requests of a voice assistant, in the middle and in the tail.",
    ),
    "sizes": (
        "benchmarks.sizes",
        "Time loads, windows and steps of the sizes that people run, with random weights.",
    ),
    "corpus": (
        "benchmarks.corpus.command",
        "Kill machines and commands under `whisper-max corpus`, and time and grow its runs.",
    ),
    "cancel": ("benchmarks.cancel", "Cancel calls, and see how long they go on."),
    "guards": (
        "benchmarks.guards.command",
        "Count the words that guards take out, without speech and with it.",
    ),
    "installed": (
        "benchmarks.installed",
        "Build a wheel, install it, and time its first start with empty caches.",
    ),
    "programs": (
        "benchmarks.programs",
        "Time programs that use faster-whisper, as they are and under `whisper-max run`.",
    ),
    "peers": (
        "benchmarks.peers.command",
        "Time other programs that run Whisper, with the same weights.",
    ),
    "compare": ("benchmarks.compare.command", "Time two commits of this repository in turns."),
    "mutation": (
        "benchmarks.mutation",
        "Change one token of the package at a time, to find what the tests do not notice.",
    ),
    "plot": ("benchmarks.plot", "Draw a record of `cpu` or `peers` as a picture."),
    "headline": ("benchmarks.headline", "Draw the picture of the README from a record of `cpu`."),
    "terminal": ("benchmarks.terminal", "Draw the terminal view of `whisper-max live`."),
}
"""Every command: its module, whose `main` it is, and what it does."""


class _Door(click.Group):
    """Imports a command's module when it is called: not everyone has what all of them need."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        command: click.Command = import_module(COMMANDS[name][0]).main
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, sentence) for name, (_, sentence) in COMMANDS.items()])


@click.command(cls=_Door)
def main() -> None:
    """Measure how fast and how exact this package is.

    Every command writes a record: a JSON file that says what was found, when, on which machine,
    of which commit and by which command.
    """


if __name__ == "__main__":
    main(prog_name="python -m benchmarks")
