"""The command `compare`."""

from __future__ import annotations

import importlib.util
import json
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from . import options
from .inputs import expand

if TYPE_CHECKING:
    from ..comparison.choices import Choice
    from ..comparison.measure import Recording

_NEEDED = ("jinja2", "jiwer", "matplotlib", "psutil")
_EXTRA = "pip install 'whisper-max-backend[compare]'"

_log = logging.getLogger("whisper_max_backend")


@click.command()
@click.argument("audio", nargs=-1, required=True)
@click.option("--model", default=options.DEFAULT_MODEL, show_default=True, help="Name or path.")
@click.option(
    "-b",
    "--backend",
    "wanted",
    multiple=True,
    metavar="NAME[:PRECISION[:DEVICE]]",
    help="Several times: what to compare, e.g. max:int8. [default: ctranslate2 and max]",
)
@click.option(
    "--against",
    metavar="NAME[:PRECISION[:DEVICE]]",
    help="One of them, which the others are compared with. [default: the first]",
)
@click.option(
    "--transcript",
    "transcripts",
    multiple=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="What is said, a text file for each AUDIO in their order; words are compared with it.",
)
@click.option("--rounds", type=click.IntRange(min=1), default=3, show_default=True)
@click.option("--language", help="Language spoken, e.g. en; detected if not given.")
@click.option("--beam-size", type=click.IntRange(min=1), default=5, show_default=True)
@click.option("--vad", "vad_filter", is_flag=True, help="Leave out what is no speech.")
@click.option("--temperature", type=click.FloatRange(min=0), help="One only: no fallback.")
@click.option("--json", "json_path", type=click.Path(allow_dash=True), help="Write; - prints.")
@click.option("--html", "html_path", type=click.Path(dir_okay=False, path_type=Path), help="Write.")
@options.THREADS
@options.LOCAL_FILES_ONLY
@click.pass_context
def compare(
    context: click.Context,
    /,
    audio: tuple[str, ...],
    model: str,
    wanted: tuple[str, ...],
    against: str | None,
    transcripts: tuple[Path, ...],
    rounds: int,
    json_path: str | None,
    html_path: Path | None,
    cpu_threads: int | None,
    local_files_only: bool,
    **chosen: Any,
) -> None:
    """Compare backends and precisions on the same audio and model.

    AUDIO is a file, a folder, a pattern, or `sample`. Every backend runs in a process of its own,
    in turns with the others.
    """
    missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise click.ClickException(f"This needs {', '.join(missing)}: {_EXTRA}")
    from rich.console import Console

    from ..comparison.measure import measure
    from ..comparison.report import to_data, to_html
    from ..comparison.terminal import render

    choices, compared_with = _choices(wanted, against)
    recordings, complete = _recordings(audio, transcripts)
    transcribing = {name: value for name, value in chosen.items() if value not in (None, False)}
    told = Console(stderr=True)
    with told.status("starting") as status:
        sides = measure(
            model,
            choices,
            recordings,
            transcribing,
            loading=options.loading(cpu_threads, local_files_only),
            rounds=rounds,
            against=compared_with,
            tell=status.update,
        )
    data = to_data(model, transcribing, recordings, sides, compared_with.label)
    written = json.dumps(data, indent=1, ensure_ascii=False)
    if json_path == "-":
        click.echo(written)
    else:
        console = Console()
        console.width = max(console.width, 120)
        console.print(render(recordings, sides))
    try:
        if json_path not in (None, "-"):
            Path(str(json_path)).write_text(written + "\n", encoding="utf-8")
        if html_path is not None:
            html_path.write_text(to_html(data, recordings, sides), encoding="utf-8")
    except OSError as error:
        raise click.ClickException(f"the report cannot be written: {error}") from error
    failed = any(result.problem for side in sides for result in side.transcriptions)
    context.exit(0 if complete and not failed else 1)


def _choices(wanted: tuple[str, ...], against: str | None) -> tuple[list[Choice], Choice]:
    """What to compare, each once, and which of them the others are compared with."""
    from ..comparison.choices import first_selection, parse_choice, usable_choices
    from ..plugins import PluginError, backends

    try:
        found = list(backends().values())
        if wanted:
            choices = list(dict.fromkeys(parse_choice(text, found) for text in wanted))
        else:
            usable = usable_choices(found)
            choices = [usable[label] for label in first_selection(usable)]
        compared_with = parse_choice(against, found) if against else choices[0]
    except (ValueError, PluginError) as error:
        raise click.ClickException(str(error)) from error
    if compared_with not in choices:
        choices.insert(0, compared_with)
    return choices, compared_with


def _recordings(
    arguments: tuple[str, ...], transcripts: tuple[Path, ...]
) -> tuple[list[Recording], bool]:
    """The recordings that can be read, and whether these are all; others are told on stderr."""
    from ..audio import checked_audio
    from ..comparison.measure import SAMPLING_RATE, Recording

    inputs = list(expand(arguments))
    if transcripts and len(transcripts) != len(inputs):
        raise click.ClickException(
            f"there are {len(inputs)} recordings and {len(transcripts)} transcripts: give one for "
            "each, in the same order"
        )
    recordings = []
    for number, found in enumerate(inputs):
        try:
            if found.path is None:
                raise ValueError(found.problem)
            samples = checked_audio(str(found.path), SAMPLING_RATE)
            if not len(samples):
                raise ValueError("the recording is empty")
            text = transcripts[number].read_text(encoding="utf-8") if transcripts else None
        except (ValueError, OSError) as error:
            _log.debug("%s is left out", found.name, exc_info=error)
            click.echo(f"{found.name}: {error}", err=True)
            continue
        recordings.append(Recording(found.name, samples, text))
    if not recordings:
        raise click.ClickException("there is no recording to compare on")
    return recordings, len(recordings) == len(inputs)
