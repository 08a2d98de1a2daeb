"""The example plugin, installed from its folder as its README says, and used."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from compat_tests.support.corpus import surroundings
from compat_tests.support.models import model_directory
from compat_tests.support.recordings import audio_file

pytestmark = pytest.mark.slow
EXAMPLE = Path(__file__).parent.parent / "examples" / "whisper-max-shout"
COMMAND = "from whisper_max_backend.cli import main; main()"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the plugin installed in it; what it depends on is installed already."""
    target = tmp_path_factory.mktemp("site")
    source = target / "source"
    source.mkdir()
    for file in EXAMPLE.glob("*.*"):  # building leaves nothing behind in the repository
        (source / file.name).write_bytes(file.read_bytes())
    options = ("--quiet", "--no-deps", "--no-build-isolation", "--target", str(target))
    subprocess.run([sys.executable, "-m", "pip", "install", *options, str(source)], check=True)
    return target


def whisper_max(site: Path, *arguments: str, environment: Mapping[str, str] = os.environ) -> str:
    inherited = os.environ.get("PYTHONPATH")
    environment = {
        **environment,
        "PYTHONPATH": os.pathsep.join([str(site), *([inherited] if inherited else [])]),
        "WHISPER_MAX_PLUGINS": "shout",
        "HOUSE_STYLE_MODEL": str(model_directory("tiny.en")),
    }
    command = [sys.executable, "-c", COMMAND, *arguments]
    return subprocess.run(
        command, env=environment, check=True, stdout=subprocess.PIPE, text=True, timeout=600
    ).stdout


def named(listed: str, name: str) -> dict[str, Any]:
    (found,) = (one for one in json.loads(listed) if one["name"] == name)
    assert isinstance(found, dict)
    return found


def test_it_is_listed(site: Path) -> None:
    plugin = named(whisper_max(site, "plugins", "--json"), "shout")
    assert plugin["distribution"] == "whisper-max-shout"
    assert plugin["version"] == "0.1.0"
    assert plugin["hooks"] == [
        *("register_backends", "register_readers", "register_writers", "resolve_model"),
    ]
    assert named(whisper_max(site, "backends", "--json"), "shout")["summary"] == "upper case"


def test_it_transcribes(site: Path) -> None:
    options = ("--model", "house-style", "--compute-type", "float32", "--temperature", "0")
    heard = whisper_max(site, "transcribe", "sample", *options, "--backend", "max")
    shouted = whisper_max(site, "transcribe", "sample", *options, "--backend", "shout")
    assert "country" in heard
    assert shouted == heard.upper()


def test_a_corpus_is_read_and_written_by_it(site: Path, tmp_path: Path) -> None:
    shutil.copy(audio_file("jfk.flac"), tmp_path)
    (tmp_path / "list.m3u").write_text("# one recording\njfk.flac\n")
    with surroundings() as environment:
        given = ("--compute-type", "float32", "--write", "loud")
        whisper_max(
            *(site, "corpus", str(tmp_path / "list.m3u"), "--out", str(tmp_path / "out")),
            *(*given, "--model", "house-style"),
            environment=environment,
        )
    (written,) = (tmp_path / "out" / "loud").iterdir()
    assert written.read_text().startswith("jfk.flac: AND SO, MY FELLOW AMERICANS")
