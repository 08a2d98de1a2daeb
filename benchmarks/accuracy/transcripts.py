"""Real speech with transcripts: the recordings of the tests, and 18 minutes of Asterisk's prompts.

The prompts are Debian's: ``asterisk-core-sounds-en-g722`` (Allison Smith, CC-BY-SA-3.0) at 16 kHz,
and their texts in ``asterisk-core-sounds-en``. Only prompts of two seconds and more are taken.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from faster_whisper.audio import decode_audio

from benchmarks.speech import RATE
from compat_tests.support.recordings import load
from whisper_max_backend.engine.compile.cache import cache_folder

_VERSION = "1.6.1-1"
_PACKAGES = {
    "asterisk-core-sounds-en": ("973e797d28e37fa6ca3c0a9d6fa717e77cf1268ae916bf09fd3503113cdffa50"),
    "asterisk-core-sounds-en-g722": (
        "38c5261820b406dcb0ecb37675720da2b0864850690690352ca52707eb623806"
    ),
}
"""Debian packages by the SHA-256 of their files."""
_SHORTEST = 2.0  # seconds
_NO_SPEECH = re.compile(r"[\[(]")
"""How the text of a prompt begins that is noise, music or silence."""

TRANSCRIPTS = {
    "jfk": "And so, my fellow Americans, ask not what your country can do for you, ask what you "
    "can do for your country.",
    "command": "Go forward ten meters.",
    "austen": "And Mr. John Dashwood had then leisure to consider how much there might be "
    "prudently in his power to do for them. He was not an ill-disposed young man, unless to be "
    "rather cold-hearted and rather selfish is to be ill-disposed. Had he married a more amiable "
    "woman, he might have been made still more respectable than he was: he might even have been "
    "made amiable himself.",
    "beckett": "Ever tried. Ever failed. No matter. Try again. Fail again. Fail better.",
}


@dataclass(frozen=True)
class Transcribed:
    """A recording and what is said in it, if that is known.

    Attributes:
        samples: float32 ``[samples]`` at 16 kHz.
        transcript: "" where nobody speaks.
        language: As Whisper calls it; None lets the model find it.
        group: Recordings whose errors are counted together, too.
    """

    name: str
    samples: np.ndarray
    transcript: str | None
    language: str | None = "en"
    group: str = "prompts"

    @property
    def seconds(self) -> float:
        return len(self.samples) / RATE


def from_manifest(manifest: Path) -> Iterator[Transcribed]:
    """The recordings that lines of JSON name.

    Each has a ``path``, seen from the manifest's folder, and may have a ``transcript`` (or
    ``text``), a ``language`` and a ``group`` (or ``category``).
    """
    for line in manifest.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        language = row.get("language")
        yield Transcribed(
            row["path"],
            decode_audio(str(manifest.parent / row["path"]), sampling_rate=RATE),
            row.get("transcript", row.get("text")),
            language,
            row.get("group") or f"{row.get('category', 'speech')}, {language or 'no language'}",
        )


def transcribed_speech() -> Iterator[Transcribed]:
    """All recordings, the prompts fetched once and kept in the cache folder.

    Raises:
        RuntimeError: The packages cannot be had, or are not those that were looked at.
    """
    for name, transcript in TRANSCRIPTS.items():
        yield Transcribed(name, load(name), transcript)
    root = _fetched()
    sounds = root / "usr/share/asterisk/sounds/en_US_f_Allison"
    texts = root / "usr/share/doc/asterisk-core-sounds-en/core-sounds-en.txt.gz"
    for line in gzip.decompress(texts.read_bytes()).decode("utf-8", "replace").splitlines():
        name, _, transcript = (part.strip() for part in line.partition(":"))
        file = sounds / f"{name}.g722"
        if line.startswith(";") or not transcript or _NO_SPEECH.match(transcript):
            continue
        if file.is_file():
            samples = decode_audio(str(file), sampling_rate=RATE)
            if len(samples) >= _SHORTEST * RATE:
                yield Transcribed(name, samples, transcript)


def _fetched() -> Path:
    """The packages' content, unpacked."""
    target = cache_folder() / "speech" / f"asterisk-core-sounds-en-{_VERSION}"
    if target.is_dir():
        return target
    if not (shutil.which("apt-get") and shutil.which("dpkg-deb")):
        raise RuntimeError(
            f"the prompts come with Debian's packages {', '.join(_PACKAGES)}, and there is no "
            f"apt-get here: unpack their version {_VERSION} into {target}"
        )
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as draft:
        asked = [f"{package}={_VERSION}" for package in _PACKAGES]
        fetched = subprocess.run(
            ["apt-get", "download", "-qq", *asked], cwd=draft, capture_output=True, text=True
        )
        if fetched.returncode != 0:
            raise RuntimeError(
                f"apt-get did not fetch {', '.join(asked)} (apt-get update first?): "
                f"{fetched.stderr.strip()}"
            )
        for package, digest in _PACKAGES.items():
            (file,) = Path(draft).glob(f"{package}_*.deb")
            if hashlib.sha256(file.read_bytes()).hexdigest() != digest:
                raise RuntimeError(f"{file.name} is not the file that the transcripts belong to")
            subprocess.run(["dpkg-deb", "-x", str(file), f"{draft}/unpacked"], check=True)
        os.replace(f"{draft}/unpacked", target)
    return target
