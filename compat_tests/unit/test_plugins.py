"""Hooks, plugins, the choice of a backend, and where a model's name leads."""

from __future__ import annotations

import inspect
import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import faster_whisper
import numpy as np
import pytest
from faster_whisper.transcribe import Segment, TranscriptionInfo, Word

from compat_tests.support.models import model_directory
from whisper_max_backend import hookimpl, hookspecs, load_model, plugins, resolvers
from whisper_max_backend.backends import Availability, openai_whisper_backend
from whisper_max_backend.backends.openai_whisper_backend import OpenAIWhisperBackend
from whisper_max_backend.corpus.readers import readers
from whisper_max_backend.corpus.writers import writers

ROOT = Path(__file__).parent.parent.parent
PAGE = (ROOT / "docs" / "plugins.md").read_text()
EXAMPLE = (ROOT / "examples" / "whisper-max-shout" / "whisper_max_shout.py").read_text()
HOOKS = [
    name for name, value in vars(hookspecs).items() if hasattr(value, "whisper_max_backend_spec")
]


@pytest.fixture(autouse=True)
def _fresh_manager() -> Iterator[None]:
    plugins.manager.cache_clear()
    yield
    plugins.manager.cache_clear()


class FakeBackend:
    """Usable as told; a loaded model is what it was loaded with."""

    summary = "for tests"

    def __init__(self, name: str, priority: int = 1000, **devices: tuple[str, ...]) -> None:
        self.name = name
        self.priority = priority
        self.devices = devices

    def probe(self) -> Availability:
        return Availability(self.devices, "" if self.devices else "it is broken: mend it")

    def load(self, model: str, device: str, compute_type: str, **kwargs: Any) -> Any:
        return (self.name, model, device, compute_type, kwargs)


class BackendPlugin:
    def __init__(self, *backends: FakeBackend) -> None:
        self.backends = backends

    @hookimpl
    def register_backends(self, register: Callable[[FakeBackend], None]) -> None:
        for backend in self.backends:
            register(backend)


Install = Callable[[str, str], None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Install a plugin from its source, as pip would, and let it be used."""
    monkeypatch.syspath_prepend(tmp_path)

    def put(name: str, source: str) -> None:
        module = f"whisper_max_{name}"
        (tmp_path / f"{module}.py").write_text(source)
        information = tmp_path / f"{module}-1.2.3.dist-info"
        information.mkdir()
        (information / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {module}\nVersion: 1.2.3\n"
        )
        (information / "entry_points.txt").write_text(f"[whisper_max_backend]\n{name} = {module}\n")
        monkeypatch.setenv(plugins.ALLOWED, name)
        monkeypatch.delitem(sys.modules, module, raising=False)

    return put


# Contracts


@pytest.mark.parametrize("hook", HOOKS)
def test_every_hook_is_documented_and_tested(hook: str) -> None:
    specification = getattr(hookspecs, hook)
    arguments = ", ".join(inspect.signature(specification).parameters)
    assert f"`{hook}({arguments})`" in PAGE
    assert f"def {hook}(" in EXAMPLE, "the example plugin shows every hook"
    assert inspect.getdoc(specification)
    assert any(name.startswith(f"test_{hook}_") for name in globals())


def test_a_hook_that_does_not_exist(install: Install) -> None:
    install(
        "typo",
        "from whisper_max_backend import hookimpl\n"
        "@hookimpl\n"
        "def register_backend(register): pass\n",
    )
    with pytest.raises(plugins.PluginError, match=r"'typo'.*unknown hook 'register_backend'"):
        plugins.manager()


def test_a_plugin_that_does_not_load(install: Install) -> None:
    install("broken", "import no_such_module")
    with pytest.raises(plugins.PluginError, match=r"'broken'.*no_such_module.*uninstall"):
        plugins.manager()


def test_the_list_of_allowed_plugins(install: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    install("broken", "import no_such_module")
    monkeypatch.setenv(plugins.ALLOWED, "")
    assert "broken" not in {plugin["name"] for plugin in plugins.describe_plugins()}
    plugins.manager.cache_clear()
    monkeypatch.setenv(plugins.ALLOWED, "absent")
    with pytest.raises(plugins.PluginError, match="not installed.*absent"):
        plugins.manager()


def test_built_in_plugins_have_no_privilege() -> None:
    described = {plugin["name"]: plugin for plugin in plugins.describe_plugins()}
    assert {hook for plugin in described.values() for hook in plugin["hooks"]} == set(HOOKS)
    assert {"max", "ctranslate2", "openai-whisper", "path", "hugging-face-hub"} <= set(described)
    assert {plugin["distribution"] for plugin in described.values()} == {"whisper-max-backend"}


# Backends


def test_register_backends_puts_the_highest_priority_first() -> None:
    plugins.manager().register(
        BackendPlugin(FakeBackend("low", -5, cpu=("float32",)), FakeBackend("high", cpu=("int8",)))
    )
    assert list(plugins.backends()) == ["high", "max", "ctranslate2", "openai-whisper", "low"]


def test_register_backends_refuses_a_name_twice() -> None:
    plugins.manager().register(BackendPlugin(FakeBackend("max")))
    with pytest.raises(plugins.PluginError, match="named 'max'"):
        plugins.backends()


class CorpusPlugin:
    """A reader, a writer, or both of a name."""

    def __init__(self, name: str) -> None:
        self.name = name

    def reads(self, source: str) -> bool:
        return source.endswith(self.name)

    @hookimpl
    def register_readers(self, register: Callable[[Any], None]) -> None:
        register(self)

    @hookimpl
    def register_writers(self, register: Callable[[Any], None]) -> None:
        register(self)


def test_register_readers_are_asked_before_the_built_in_ones() -> None:
    plugin: Any = CorpusPlugin(".wav")
    plugins.manager().register(plugin)
    assert next(one for one in readers().values() if one.reads("x.wav")) is plugin
    assert next(one for one in readers().values() if one.reads("x.mp3")).name == "files"


def test_register_writers_add_to_the_built_in_ones() -> None:
    plugins.manager().register(CorpusPlugin("mine"))
    assert set(writers()) == {"txt", "srt", "vtt", "tsv", "lhotse", "mine"}


def test_readers_and_writers_have_names_of_their_own() -> None:
    plugins.manager().register(CorpusPlugin("tars"))
    with pytest.raises(plugins.PluginError, match="a reader named 'tars'"):
        readers()
    plugins.manager().register(CorpusPlugin("lhotse"))
    with pytest.raises(plugins.PluginError, match="a writer named 'lhotse'"):
        writers()


@pytest.mark.parametrize(
    ("device", "compute_type", "expected"),
    [
        ("auto", "default", "first"),
        ("cpu", "auto", "first"),
        ("cpu", "int8", "first"),
        ("cuda", "default", "second"),
        ("auto", "float16", "second"),
    ],
)
def test_the_best_backend_is_chosen(device: str, compute_type: str, expected: str) -> None:
    plugins.manager().register(
        BackendPlugin(
            FakeBackend("broken", 1002),
            FakeBackend("first", 1001, cpu=("float32", "int8")),
            FakeBackend("second", 1000, cpu=("float32",), cuda=("float16",)),
        )
    )
    loaded: Any = load_model("m", device=device, compute_type=compute_type, cpu_threads=3)
    assert loaded == (expected, "m", device, compute_type, {"cpu_threads": 3})


def test_backends_that_cannot_be_chosen() -> None:
    plugins.manager().register(BackendPlugin(FakeBackend("broken")))
    with pytest.raises(ValueError, match="no backend 'absent'.*broken, max"):
        load_model("m", "absent")
    with pytest.raises(RuntimeError, match="'broken' is not usable: it is broken"):
        load_model("m", "broken")
    with pytest.raises(ValueError, match="device 'toaster' here .there are: .*cpu"):
        load_model("tiny.en", device="toaster")
    with pytest.raises(ValueError, match="'float7' on device 'auto'.*whisper-max backends"):
        load_model("m", compute_type="float7")


def test_probes() -> None:
    for name in ("max", "ctranslate2"):
        availability = plugins.backends()[name].probe()
        assert availability.usable, availability.reason
        assert {"float32", "int8"} <= set(availability.devices["cpu"])


def test_max_without_max(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "whisper_max_backend.engine.api", None)
    availability = plugins.backends()["max"].probe()
    assert not availability.usable
    assert "reinstall" in availability.reason


def test_the_backend_ctranslate2_is_stock_faster_whisper() -> None:
    loaded: Any = load_model("tiny.en", "ctranslate2", "cpu", "float32", cpu_threads=1)
    assert type(loaded) is faster_whisper.WhisperModel
    assert loaded.model.compute_type == "float32"


def test_the_backend_max_is_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    received: dict[str, Any] = {}
    monkeypatch.setattr(
        "whisper_max_backend.backends.max_backend.WhisperModel",
        lambda model, **options: received.update(options, model=model),
    )
    load_model("tiny.en", "max", "cpu", "int8", num_workers=2)
    assert received == {
        **{"model": "tiny.en", "device": "cpu", "compute_type": "int8", "num_workers": 2}
    }


# Names of models


def test_resolve_model_finds_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tiny.en").mkdir()
    (tmp_path / "checkpoint.pt").touch()
    monkeypatch.chdir(tmp_path)
    for name in ("tiny.en", str(tmp_path), "checkpoint.pt"):
        assert plugins.resolve_model(name) == name


def test_resolve_model_finds_packages() -> None:
    assert plugins.resolve_model("tiny.en") == str(model_directory("tiny.en"))


def test_resolve_model_asks_the_hub_last(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, dict[str, Any]]] = []

    def download(name: str, **options: Any) -> str:
        asked.append((name, options))
        return f"/hub/{name}"

    monkeypatch.setattr(faster_whisper, "download_model", download)
    monkeypatch.setattr(plugins, "download_model", download)
    monkeypatch.setattr(resolvers, "PACKAGES", {})
    assert plugins.resolve_model("tiny.en") == "/hub/tiny.en"
    assert plugins.resolve_model("owner/name", local_files_only=True) == "/hub/owner/name"
    # A revision is the hub's, whatever is installed here.
    assert plugins.resolve_model("tiny.en", revision="abc", cache_dir=None) == "/hub/tiny.en"
    assert asked == [
        ("tiny.en", {"local_files_only": False}),
        ("owner/name", {"local_files_only": True}),
        ("tiny.en", {"local_files_only": False, "revision": "abc", "cache_dir": None}),
    ]


def test_resolve_model_lets_plugins_come_before_packages(tmp_path: Path) -> None:
    class Resolver:
        @hookimpl
        def resolve_model(self, name: str, local_files_only: bool) -> str | None:
            return f"/{name}/{local_files_only}" if name in ("tiny.en", str(tmp_path)) else None

    plugins.manager().register(Resolver())
    assert plugins.resolve_model("tiny.en", local_files_only=True) == "/tiny.en/True"
    assert plugins.resolve_model(str(tmp_path)) == str(tmp_path), "a path is what it is"


@pytest.mark.parametrize("name", ["enormous", "no/such/folder", "/no/such/folder", "file.pt"])
def test_resolve_model_says_what_a_name_may_be(name: str) -> None:
    with pytest.raises(ValueError, match=f"no model '{name}'.*directory.*large-v3"):
        plugins.resolve_model(name)


# openai-whisper, without PyTorch


FOLDER = str(Path(__file__).parent)  # a name that resolves to itself


class FakeWhisper:
    """What the adapter touches of an openai-whisper model."""

    is_multilingual = True
    device = types.SimpleNamespace(type="cpu")
    dims = types.SimpleNamespace(n_mels=80)

    def to(self, device: str) -> FakeWhisper:
        assert device == self.device.type
        return self

    def detect_language(self, mel: Any) -> tuple[None, dict[str, float]]:
        return None, {"en": 0.1, "fr": 0.7, "de": 0.2}

    def transcribe(self, audio: np.ndarray, **options: Any) -> dict[str, Any]:
        self.audio, self.options = audio, options
        segment = {
            **{"id": 0, "seek": 0, "start": 0.0, "end": 1.0, "text": " Oui", "tokens": [1]},
            **{"temperature": 0.0, "avg_logprob": -0.1, "compression_ratio": 1.0},
            "no_speech_prob": 0.0,
        }
        words = [{"word": " Oui", "start": 0.0, "end": 1.0, "probability": 0.9}]
        return {
            "segments": [segment | ({"words": words} if options["word_timestamps"] else {})],
            "language": options["language"],
        }


@pytest.fixture
def openai_whisper(monkeypatch: pytest.MonkeyPatch) -> FakeWhisper:
    model = FakeWhisper()
    mel = types.SimpleNamespace(to=lambda device: "mel")
    module: Any = types.ModuleType("whisper")
    module.pad_or_trim = lambda samples: samples
    module.log_mel_spectrogram = lambda samples, n_mels: mel
    monkeypatch.setitem(sys.modules, "whisper", module)
    monkeypatch.setattr(openai_whisper_backend, "_load", lambda path: model)
    return model


def test_openai_whisper_gives_the_same_types(openai_whisper: FakeWhisper) -> None:
    model = OpenAIWhisperBackend().load(FOLDER, "cpu", "default")
    samples = np.zeros(32_000, np.float32)
    segments, info = model.transcribe(samples, word_timestamps=True, log_prob_threshold=-2.0)
    (segment,) = segments
    assert isinstance(segment, Segment)
    assert (segment.id, segment.text) == (1, " Oui")
    assert segment.words == [Word(start=0.0, end=1.0, word=" Oui", probability=0.9)]
    assert isinstance(info, TranscriptionInfo)
    assert (info.language, info.language_probability, info.duration) == ("fr", 0.7, 2.0)
    assert info.all_language_probs == [("fr", 0.7), ("de", 0.2), ("en", 0.1)]
    assert info.transcription_options.log_prob_threshold == -2.0
    options = openai_whisper.options
    assert options["logprob_threshold"] == -2.0
    assert options["beam_size"] == 5, "faster-whisper's default"
    assert options["language"] == "fr"
    assert options["length_penalty"] is None
    assert options["fp16"] is False
    segments, info = model.transcribe(samples, language="de")
    assert next(iter(segments)).words is None
    assert (info.language, info.language_probability) == ("de", 1)


def test_openai_whisper_refuses_what_it_has_not(openai_whisper: FakeWhisper) -> None:
    backend = OpenAIWhisperBackend()
    with pytest.raises(ValueError, match="takes no num_workers"):
        backend.load(FOLDER, "cpu", "default", num_workers=2)
    with pytest.raises(ValueError, match="no compute type int8"):
        backend.load(FOLDER, "cpu", "int8")
    with pytest.raises(ValueError, match="float16 on GPUs only"):
        backend.load(FOLDER, "cpu", "float16")
    model = backend.load(FOLDER, "cpu", "float32")
    samples = np.zeros(100, np.float32)
    with pytest.raises(ValueError, match="no option vad_filter, hotwords"):
        model.transcribe(samples, vad_filter=True, hotwords="MAX", multilingual=False)
    with pytest.raises(ValueError, match="length_penalty"):
        model.transcribe(samples, length_penalty=0.6)


def test_openai_whisper_is_not_installed() -> None:
    availability = OpenAIWhisperBackend().probe()
    if not availability.usable:
        assert "whisper-max-backend[openai-whisper]" in availability.reason
