"""A model and its process: the interpreter's end, forks, pickles, green threads.

Each test runs programs of their own. Where the reference works, it runs the same program, and the
outputs are compared.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib.util
import os
import pickle
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from compat_tests.support.miniature import ARCHITECTURES, make_model

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

COMMON = """
import atexit, importlib, os, pickle, sys, threading, time
import numpy as np

package = importlib.import_module(sys.argv[1])
directory = sys.argv[2]
waveform = np.sin(np.cumsum(np.random.default_rng(0).uniform(0, 1, 32000))).astype(np.float32)

def load():
    return package.WhisperModel(directory, device="cpu", compute_type="float32")

def tokens(model):
    features = model.feature_extractor(waveform)[None, :, :200]
    prompt = ["<|startoftranscript|>", "<|en|>", "<|transcribe|>"]
    results = model.model.generate(
        package_storage(features), [prompt], beam_size=1, max_length=24
    )
    return results[0].sequences_ids

def package_storage(features):
    from faster_whisper.transcribe import get_ctranslate2_storage
    return get_ctranslate2_storage(features)
"""


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small model that takes 30 seconds of audio."""
    architecture = dataclasses.replace(ARCHITECTURES["one-head"], n_audio_ctx=1500)
    return make_model(tmp_path_factory.mktemp("processes"), architecture)


def run(
    program: str, directory: Path, package: str = "whisper_max_backend", before: str = ""
) -> tuple[int, str, str]:
    """Exit status, output and errors of a program; it and its children are killed if they hang."""
    process = subprocess.Popen(
        [sys.executable, "-c", before + COMMON + program, package, str(directory)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        output, errors = process.communicate(timeout=300)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        output, errors = process.communicate()
        pytest.fail(f"it hangs: {output}\n{errors}")
    return process.returncode, output, errors


def check_as_the_reference(program: str, directory: Path, before: str = "") -> None:
    expected = run(program, directory, "faster_whisper", before)
    assert expected[0] == 0, expected
    assert "[" in expected[1]
    actual = run(program, directory, "whisper_max_backend", before)
    assert actual[:2] == expected[:2], actual


# The interpreter's end

ENDS = {
    "a thread": """
model = load()
def late():
    time.sleep(0.2)  # the main thread has ended
    print(tokens(model))
threading.Thread(target=late).start()
""",
    "a thread that loads": """
def late():
    time.sleep(0.2)
    print(tokens(load()))
threading.Thread(target=late).start()
""",
    "an executor": """
from concurrent.futures import ThreadPoolExecutor
model = load()
threads = ThreadPoolExecutor(2)
for _ in range(4):
    threads.submit(lambda: (time.sleep(0.1), sys.stdout.write(f"{tokens(model)}\\n")))
""",
    "an exit handler": """
model = load()
atexit.register(lambda: print(tokens(model)))
""",
    "an exit handler from before": """
atexit.register(lambda: print(tokens(model)))
model = load()
""",
    "an exit handler that loads": """
atexit.register(lambda: print(tokens(load())))
""",
    "an exit handler beside a daemon thread": """
atexit.register(lambda: print(tokens(model)))
model, begun = load(), threading.Event()
def go_on():
    while True:
        model.feature_extractor(waveform)
        model.detect_language(waveform)
        begun.set()
if sys.argv[1] != "faster_whisper":  # which does not survive it
    threading.Thread(target=go_on, daemon=True).start()
    begun.wait(60)
""",
}


@pytest.mark.parametrize("end", list(ENDS))
def test_the_last_requests_are_answered(end: str, directory: Path) -> None:
    check_as_the_reference(ENDS[end], directory)


DROPS_OUTPUTS = "output = model.encode(np.zeros((80, 20), np.float32)); output = output[0:1]"
SLICES_OUTPUTS = "output[0:1]"
READS_OUTPUTS = "output.to('bfloat16').to('float32'), output.to_device('cpu').to('float16')"


@pytest.mark.parametrize(
    "work",
    [
        "tokens(model)",
        "model.feature_extractor(waveform)",
        "load()",
        DROPS_OUTPUTS,
        SLICES_OUTPUTS,
        READS_OUTPUTS,
    ],
)
def test_a_daemon_thread_ends_in_silence(work: str, directory: Path) -> None:
    program = f"""
model, begun = load(), threading.Event()
output = model.encode(np.zeros((80, 20), np.float32))
def go_on():
    global output
    while True:
        {work}
        begun.set()
threading.Thread(target=go_on, daemon=True).start()
begun.wait(60)
time.sleep(float(os.urandom(1)[0]) / 2000)
"""
    for _ in range(6):
        status, output, errors = run(program, directory)
        assert (status, output) == (0, ""), errors
        assert "FATAL" not in errors
        assert "Traceback" not in errors


def test_an_interrupted_transcription(directory: Path) -> None:
    """The request is done when Ctrl-C is raised, so that the model can be unloaded at once."""
    program = """
import signal
from whisper_max_backend.engine.replica import Replica
model = load()
def text():
    segments, _ = model.transcribe(waveform, language="en", temperature=0)
    return [segment.text for segment in segments]
expected = text()
generate = Replica.generate
def interrupted(*args):
    signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
    time.sleep(2)  # as a longer request
    return generate(*args)
Replica.generate = interrupted
try:
    text()
except KeyboardInterrupt:
    print("interrupted")
Replica.generate = generate
model.model.unload_model()
print(model.model.model_is_loaded)
model.model.load_model()
print(text() == expected)
"""
    status, output, errors = run(program, directory)
    assert (status, output.split()) == (0, ["interrupted", "False", "True"]), errors


# Forks

IN_CHILD = """
def child(work):
    \"\"\"Does something in a forked child, and prints what comes of it.\"\"\"
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        try:
            print(work())
        except Exception as error:
            print(type(error).__name__, error)
        sys.exit(3)
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""


@pytest.mark.parametrize(
    "work",
    [
        "tokens(model)",
        "list(model.transcribe(waveform, language='en')[0])",
        "model.model.encode(np.zeros((1, 80, 100), np.float32))",
        "load()",
        "(model.model.unload_model(), model.model.load_model())",
    ],
)
def test_a_fork_of_a_process_with_a_model(work: str, directory: Path) -> None:
    program = f"""
model = load()
first = tokens(model)
child(lambda: {work})
assert tokens(model) == first
"""
    status, output, errors = run(IN_CHILD + program, directory)
    assert status == 0, errors
    told, ended = output.splitlines()
    assert told.startswith("RuntimeError this process was forked")
    assert "load the model after the fork" in told
    assert "spawn" in told
    assert ended == "3"


@pytest.mark.parametrize("end", ["sys.exit(3)", "raise SystemExit(3)", "ctypes.CDLL(None).exit(3)"])
def test_the_end_of_a_forked_process(end: str, directory: Path) -> None:
    """Destructors of MAX's objects would wait for threads that stayed in the other process."""
    program = f"""
import ctypes, sys
model = load()
first = tokens(model)
output = model.encode(np.zeros((80, 100), np.float32))
sys.stdout.flush()
pid = os.fork()
if pid == 0:
    atexit.register(lambda: print("handler"))
    sys.stdout.write("buffered by Python ")
    ctypes.CDLL(None).printf(b"buffered by C ")
    {end}
_, status = os.waitpid(pid, 0)
assert tokens(model) == first
print(os.waitstatus_to_exitcode(status))
"""
    status, output, errors = run(program, directory)
    assert status == 0, errors
    assert "buffered by C" in output
    assert output.split()[-1] == "3"
    if "CDLL" not in end:  # which leaves the interpreter as it is
        assert "buffered by Python" in output
        assert "handler" in output


def test_features_after_a_fork(directory: Path) -> None:
    program = """
from faster_whisper.feature_extractor import FeatureExtractor
model = load()
model.feature_extractor(waveform)
expected = FeatureExtractor(**model.feat_kwargs)(waveform)
child(lambda: all(np.array_equal(model.feature_extractor(waveform), expected) for _ in range(2)))
"""
    status, output, errors = run(IN_CHILD + program, directory)
    assert (status, output.split()) == (0, ["True", "3"]), errors
    assert errors.count("computed by the reference's NumPy code") == 1


def test_a_model_that_is_loaded_after_the_fork(directory: Path) -> None:
    """As by gunicorn's workers or a pool's initializer; MAX may be imported before."""
    program = """
if sys.argv[1] != "faster_whisper":
    import max.engine, whisper_max_backend.engine.whisper, whisper_max_backend.feature_extractor
child(lambda: tokens(load()))
"""
    check_as_the_reference(IN_CHILD + program, directory)


def test_multiprocessing_forks_by_default(directory: Path) -> None:
    program = """
import multiprocessing
def work():
    return tokens(model)
model = load()
tokens(model)
with multiprocessing.get_context("fork").Pool(1) as pool:
    try:
        pool.apply_async(work).get(120)
    except RuntimeError as error:
        print(error)
"""
    status, output, errors = run(program, directory)
    assert status == 0, errors
    assert output.startswith("this process was forked")


def test_a_swapped_program_goes_on_in_a_fork(directory: Path) -> None:
    """There is an engine that can be loaded: CTranslate2's."""
    program = """
import faster_whisper, whisper_max_backend
whisper_max_backend.install()
package = faster_whisper
model = load()
first = tokens(model)
child(lambda: tokens(load()) == first)
"""
    status, output, errors = run(IN_CHILD + program, directory)
    assert (status, output.split()) == (0, ["True", "3"]), errors
    assert "CTranslate2 runs the model" in errors
    assert "forked" in errors


# Pickles


def test_a_class_that_another_process_gets(directory: Path, tmp_path: Path) -> None:
    """By its own name, though it says that it is of faster_whisper's module."""
    import whisper_max_backend

    passed = functools.partial(whisper_max_backend.WhisperModel, device="cpu")
    (tmp_path / "class").write_bytes(pickle.dumps((whisper_max_backend.WhisperModel, passed)))
    program = f"""
cls, partial = pickle.loads(open({str(tmp_path / "class")!r}, "rb").read())
assert cls is package.WhisperModel is partial.func
print(type(partial(directory).model).__module__)
"""
    status, output, errors = run(program, directory)
    assert (status, output.strip()) == (0, "whisper_max_backend.engine.whisper"), errors


# Green threads

GREEN = {
    "eventlet": (
        "import eventlet; eventlet.monkey_patch()",
        "from eventlet import spawn, tpool\njoin, native = lambda t: t.wait(), tpool.execute",
    ),
    "gevent": (
        "from gevent import monkey; monkey.patch_all()",
        "from gevent import spawn, get_hub\n"
        "join, native = lambda t: t.get(), lambda f, *a: get_hub().threadpool.apply(f, a)",
    ),
}


@pytest.mark.parametrize("name", list(GREEN))
def test_green_threads(name: str, directory: Path) -> None:
    if importlib.util.find_spec(name) is None:
        pytest.skip(f"{name} is not installed")
    patch, names = GREEN[name]
    program = f"""
{names}
model = load()
print(tokens(model))
print([join(task) for task in [spawn(tokens, model) for _ in range(3)]])
print([join(task) for task in [spawn(native, tokens, model) for _ in range(6)]])
features = package_storage(model.feature_extractor(waveform)[None, :, :200])
prompt = ["<|startoftranscript|>", "<|en|>", "<|transcribe|>"]
later = model.model.generate(features, [prompt], asynchronous=True, max_length=24)
print(later[0].result().sequences_ids)
"""
    check_as_the_reference(program, directory, before=patch + "\n")
