"""`whisper-max run`: unmodified programs and their child processes on this engine."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from compat_tests.support.models import model_directory
from whisper_max_backend.cli.run import SITE, VARIABLE

pytestmark = pytest.mark.slow

MAIN = [sys.executable, "-c", "from whisper_max_backend.cli import main; main()", "run"]
TELL = """
    import sys
    from faster_whisper import WhisperModel
    model = WhisperModel(sys.argv[1], device="cpu")
    print(type(model.model).__module__, model.model.compute_type, *sys.argv[2:], flush=True)
"""


@pytest.fixture
def script(tmp_path: Path) -> Path:
    path = tmp_path / "tell.py"
    path.write_text(textwrap.dedent(TELL))
    return path


def run(
    *arguments: object, verbose: bool = False, timeout: float = 300, **variables: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*MAIN[:-1], *(["--verbose"] if verbose else []), MAIN[-1], *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        timeout=timeout,
        env={**os.environ, **variables},
    )


def test_a_script_and_its_arguments(script: Path) -> None:
    result = run("--compute-type", "int8", script, model_directory("tiny.en"), "--compute-type", 1)
    expected = "whisper_max_backend.engine.whisper int8_float32 --compute-type 1"
    assert result.stdout.strip() == expected, result.stderr


def test_a_module(script: Path) -> None:
    result = run("-m", "tell", model_directory("tiny.en"), PYTHONPATH=str(script.parent))
    assert result.stdout.startswith("whisper_max_backend.engine.whisper "), result.stderr


def test_verbose_tells_once_which_models_run_here(tmp_path: Path) -> None:
    path = tmp_path / "logging_program.py"
    path.write_text("import logging\nlogging.basicConfig(level=0)\n" + textwrap.dedent(TELL))
    result = run(path, model_directory("tiny.en"), verbose=True)
    assert result.stderr.count(" runs on this engine (cpu, ") == 1


def test_a_command_and_the_processes_it_starts(script: Path, tmp_path: Path) -> None:
    command = tmp_path / "tell-in-a-child"
    command.write_text(f'#!/bin/sh\n{sys.executable} {script} "$1"\nexit 7\n')
    command.chmod(0o755)
    result = run(command, model_directory("tiny.en"))
    assert result.stdout.startswith("whisper_max_backend.engine.whisper "), result.stderr
    assert result.returncode == 7


def test_spawned_workers(tmp_path: Path) -> None:
    path = tmp_path / "workers.py"
    path.write_text(
        textwrap.dedent(
            """
            import multiprocessing, sys

            def engine(path):
                from faster_whisper import WhisperModel
                return type(WhisperModel(path, device="cpu").model).__module__

            if __name__ == "__main__":
                with multiprocessing.get_context("spawn").Pool(1) as pool:
                    print(pool.apply(engine, (sys.argv[1],)))
            """
        )
    )
    result = run(path, model_directory("tiny.en"))
    assert result.stdout.strip() == "whisper_max_backend.engine.whisper", result.stderr


def test_the_environments_own_sitecustomize_is_imported(script: Path, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text("print('ours too')")
    result = run(script, model_directory("tiny.en"), PYTHONPATH=str(tmp_path))
    command, program, told = result.stdout.splitlines()  # the command is a process of its own
    assert command == program == "ours too"
    assert told.startswith("whisper_max_backend.engine.whisper ")


def test_processes_without_models_pay_nothing(tmp_path: Path) -> None:
    path = tmp_path / "idle.py"
    names = ("ctranslate2", "whisper_max_backend")
    path.write_text(f"import sys; print(*(name in sys.modules for name in {names}))")
    assert run(path).stdout.strip() == "False False"


def test_processes_that_are_not_swapped_import_nothing_of_ours(tmp_path: Path) -> None:
    """Although the package is installed, and its folder for swapped processes on the path."""
    path = tmp_path / "stock.py"
    path.write_text(
        textwrap.dedent(TELL)
        + "print(*(name for name in sys.modules if name.split('.')[0] in "
        + "('max', 'mojo', 'whisper_max_backend')))\n"
    )
    environment = {name: value for name, value in os.environ.items() if name != VARIABLE}
    for more in ({}, {"PYTHONPATH": str(SITE)}):
        told, ours = subprocess.run(
            [sys.executable, path, model_directory("tiny.en")],
            env={**environment, **more},
            stdout=subprocess.PIPE,
            text=True,
            check=True,
            timeout=300,
        ).stdout.splitlines()
        assert told.startswith("ctranslate2")
        assert not ours


def test_a_program_may_swap_while_another_thread_imports(tmp_path: Path) -> None:
    """The end of that import swaps, too: neither waits for the other."""
    path = tmp_path / "threads.py"
    path.write_text(
        textwrap.dedent(
            """
            import sys, threading, whisper_max_backend

            importing = threading.Thread(target=__import__, args=("ctranslate2",), daemon=True)
            importing.start()
            while "ctranslate2" not in sys.modules:
                pass
            whisper_max_backend.install()
            importing.join()
            import ctranslate2
            print(type(ctranslate2.models.Whisper).__name__)
            """
        )
    )
    assert run(path, timeout=60).stdout.strip() == "StandIn"


IMPORTS = {
    "asked first": """
        assert importlib.util.find_spec("ctranslate2").loader.is_package("ctranslate2")
    """,
    "asked for the module first": """
        spec = importlib.util.find_spec("ctranslate2.models")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        assert type(module.Whisper).__name__ == "StandIn"
    """,
    "anew": """
        import ctranslate2
        del sys.modules["ctranslate2"]
    """,
    "anew with all of its modules": """
        import ctranslate2
        for name in [name for name in sys.modules if name.startswith("ctranslate2")]:
            del sys.modules[name]
    """,
    "reloaded": """
        import ctranslate2
        importlib.reload(ctranslate2.models)
        importlib.reload(importlib.reload(ctranslate2).models)
    """,
    "executed again by its loader": """
        import ctranslate2.models
        ctranslate2.models.__spec__.loader.exec_module(ctranslate2.models)
    """,
    "in threads": """
        together = threading.Barrier(4)
        seen = []
        def use(name):
            together.wait()
            importlib.import_module(name)
            seen.append(type(sys.modules["ctranslate2.models"].Whisper).__name__)
        names = ("ctranslate2", "ctranslate2.models", "faster_whisper", "ctranslate2.models")
        threads = [threading.Thread(target=use, args=(name,)) for name in names]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert seen == 4 * ["StandIn"], seen
    """,
    "lazily": """
        spec = importlib.util.find_spec("ctranslate2")
        spec.loader = importlib.util.LazyLoader(spec.loader)
        sys.modules["ctranslate2"] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules["ctranslate2"])
    """,
    "by a finder in front": """
        class Front:
            def find_spec(name, path=None, target=None):
                if name.split(".")[0] == "ctranslate2":
                    return importlib.machinery.PathFinder.find_spec(name, path, target)
        sys.meta_path.insert(0, Front)
        importlib.invalidate_caches()
    """,
    "by a finder that asks the others": """
        class Asking:
            def find_spec(name, path=None, target=None):
                if name != "ctranslate2.models":
                    return None
                sys.meta_path.remove(Asking)
                return importlib.util.find_spec(name)
        sys.meta_path.insert(0, Asking)
    """,
    "from one spec": """
        import ctranslate2
        spec = ctranslate2.models.__spec__
        class Kept:
            def find_spec(name, path=None, target=None):
                return spec if name == "ctranslate2.models" else None
        sys.meta_path.insert(0, Kept)
        for _ in range(3):
            importlib.reload(ctranslate2.models)
            del sys.modules["ctranslate2.models"]
            importlib.import_module("ctranslate2.models")
    """,
    "by a loader that is a class, as those of frozen modules": """
        found = importlib.util.find_spec("ctranslate2")
        class Loader:
            create_module = staticmethod(lambda spec: None)
            @staticmethod
            def exec_module(module):
                code = pathlib.Path(found.origin).parent.joinpath("models", "__init__.py")
                exec(code.read_text(), vars(module))
        class Finder:
            def find_spec(name, path=None, target=None):
                if name == "ctranslate2.models":
                    return importlib.machinery.ModuleSpec(name, Loader, is_package=True)
        sys.meta_path.append(Finder)
        sys.meta_path.insert(0, Finder)
    """,
}


@pytest.mark.parametrize("how", IMPORTS)
def test_the_swap_holds_however_the_module_is_imported(how: str, tmp_path: Path) -> None:
    path = tmp_path / "program.py"
    path.write_text(
        "import importlib, importlib.util, inspect, pathlib, sys, threading\n"
        + textwrap.dedent(IMPORTS[how])
        + "import ctranslate2, ctranslate2.models as models\n"
        + "print(type(ctranslate2.models.Whisper).__name__, type(models.Whisper).__name__)\n"
    )
    result = run(path, verbose=True, timeout=60)
    assert result.stdout.split() == ["StandIn", "StandIn"], result.stderr
    assert "did not hold" not in result.stderr


def test_the_swapped_module_has_a_loader_as_any_other(tmp_path: Path) -> None:
    path = tmp_path / "program.py"
    path.write_text(
        textwrap.dedent(
            """
            import importlib.machinery, importlib.resources, inspect, ctranslate2.models as models
            loader = models.__loader__
            assert isinstance(loader, importlib.machinery.SourceFileLoader), loader
            assert loader is models.__spec__.loader
            assert loader.is_package("ctranslate2.models")
            assert loader.get_data(models.__file__).decode() == inspect.getsource(models)
            assert importlib.resources.files(models).joinpath("__init__.py").is_file()
            """
        )
    )
    result = run(path, timeout=60)
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("verbose", [True, False])
def test_verbose_tells_where_the_swap_does_not_hold(verbose: bool, tmp_path: Path) -> None:
    path = tmp_path / "program.py"
    path.write_text("import sys\nsys.meta_path.pop(0)\nimport ctranslate2\n")
    result = run(path, verbose=verbose, timeout=60)
    assert result.returncode == 0, result.stderr
    assert ("the swap did not hold in process" in result.stderr) == verbose
    assert (str(path) in result.stderr) == verbose


def test_the_swap_stays_undone(tmp_path: Path) -> None:
    """A program that has uninstalled it may reload the module without getting it back."""
    path = tmp_path / "program.py"
    path.write_text(
        "import ctranslate2, importlib, whisper_max_backend\nwhisper_max_backend.uninstall()\n"
        "importlib.reload(ctranslate2.models)\nprint(ctranslate2.models.Whisper.__module__)\n"
    )
    result = run(path, timeout=60)
    assert result.stdout.strip() == "ctranslate2._ext", result.stderr


def test_status_and_signals_pass_through(tmp_path: Path) -> None:
    path = tmp_path / "end.py"
    path.write_text(
        "import os, signal, sys\nif sys.argv[1] == 'exit': sys.exit(5)\n"
        "os.kill(os.getpid(), signal.SIGTERM)"
    )
    assert run(path, "exit").returncode == 5
    assert run(path, "kill").returncode == -signal.SIGTERM


def test_a_program_that_does_not_exist() -> None:
    result = run("no-such-program")
    assert result.returncode == 127
    assert "no-such-program" in result.stderr
