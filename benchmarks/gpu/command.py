"""``python -m benchmarks gpu``: checks every kernel and the tokens, then times, on one device.

The record has the ``device``, its ``limits``, checks of ``kernels`` and ``tokens``, and ``cases``,
the rows of `benchmarks.gpu.cases`, beside ``peers``; ``failures`` are parts that ended early.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click

from benchmarks.gpu import HOST_TARGET
from benchmarks.gpu.predict.cards import CARDS
from benchmarks.machine import slug
from benchmarks.record import ROOT, begin, results_option

SIDE = 8192
"""Of the square matrices that the matrix rate is measured with."""
SIZES = ("base", "large-v3", "large-v3-turbo")


@click.command()
@click.option(
    "--device",
    type=click.Choice(["gpu", "cpu"]),
    default="gpu",
    show_default=True,
    help="cpu runs everything at miniature sizes, to test the command itself.",
)
@click.option("--target", help="Compile for a GPU that need not be here, e.g. sm_90, and stop.")
@click.option(
    "--predict",
    type=click.Choice(list(CARDS)),
    is_flag=False,
    flag_value="H200",
    help="Predict the times of a GPU that need not be here from the kernels' machine code "
    "[H200 where none is named], and stop.",
)
@click.option("--artifacts", type=click.Path(path_type=Path), help="Folder of compiled graphs.")
@click.option(
    "--peers",
    default="faster_whisper,transformers",
    show_default=True,
    help="Whom to compare with; empty: nobody.",
)
@click.option(
    "--int8/--no-int8", default=True, show_default=True, help="Models with int8 weights, too."
)
@click.option("--sizes", default=",".join(SIZES), show_default=True, help="Models to time.")
@click.option(
    "--model",
    type=click.Path(path_type=Path, exists=True),
    help="A real model's directory, for the end-to-end cases; base, where the test extra is.",
)
@results_option
def main(
    device: str,
    target: str | None,
    predict: str | None,
    artifacts: Path | None,
    sizes: str,
    peers: str,
    int8: bool,
    model: Path | None,
    results: Path,
) -> None:
    """Check every kernel against float64, tokens against the CPU, then time."""
    # What the environment says is read when these modules are imported, so they are imported late.
    os.environ.setdefault("MODULAR_TELEMETRY_ENABLED", "0")
    if artifacts:
        os.environ["WHISPER_MAX_CACHE"] = str(artifacts.resolve())
    if predict:
        from benchmarks.gpu.predict.report import predict as tell

        sys.exit(0 if tell(_named(sizes), predict, results) else 1)
    from max.driver import CPU, Accelerator, accelerator_count, set_virtual_cpu_target

    names = ["miniature"] if device == "cpu" else _named(sizes)
    if target:
        from compat_tests.support.gpu_target import pretend_gpu

        pretend_gpu(target)
    if device == "gpu":
        set_virtual_cpu_target(HOST_TARGET)
        if not target and accelerator_count() == 0:
            raise click.ClickException(
                "no GPU is found: --device cpu tests the command, --target compiles ahead"
            )
    place = CPU() if device == "cpu" else Accelerator()
    if target:
        _compile(place, names)
        return
    run = _Run(place, names, _named(peers), int8, model, results)
    sys.exit(0 if run.all() else 1)


def _named(names: str) -> list[str]:
    return [name for name in names.split(",") if name]


def _compile(place: Any, names: list[str]) -> None:
    """Everything that a run on such a device needs."""
    from max.driver import CPU
    from max.dtype import DType

    from benchmarks.gpu.device import product_artifact
    from benchmarks.gpu.models import SIZES as DIMENSIONS
    from compat_tests.support.gpu_kernels import kernels_artifact
    from whisper_max_backend.engine.checkpoint.weight_dtypes import Storage
    from whisper_max_backend.engine.compile.artifacts import compiled
    from whisper_max_backend.engine.compile.cache import cache_folder
    from whisper_max_backend.engine.compile.session import Session
    from whisper_max_backend.engine.cpu.model import cpu_artifact
    from whisper_max_backend.engine.cpu.model_independent_graphs import common_artifact
    from whisper_max_backend.engine.gpu.model import gpu_artifact

    session = Session([place])
    wanted = [kernels_artifact(place, dtype, session) for dtype in _types(place)]
    wanted.append(product_artifact(place, DType.bfloat16, session, SIDE))
    miniature = DIMENSIONS["miniature"]
    wanted += [gpu_artifact(miniature, t, place, session) for t in ("float32", "int8_float32")]
    for name in names:
        for compute_type in ("bfloat16", "int8_bfloat16"):
            wanted.append(gpu_artifact(DIMENSIONS[name], compute_type, place, session))
    host = CPU()
    on_host = Session([host])
    wanted.append(common_artifact(on_host))
    storages = (DType.float32, DType.float16)
    wanted += [
        cpu_artifact(Storage(DType.float32, s, DType.float32), host, on_host) for s in storages
    ]
    for spec in wanted:
        compiled(**spec)
        click.echo(f"{spec['name']} is ready")
    size = sum(file.stat().st_size for file in cache_folder().glob("*.mef"))
    click.echo(f"{cache_folder()}: {size / 2**20:.1f} MiB")


def _types(place: Any) -> list[Any]:
    from max.dtype import DType

    # MAX's bfloat16 products are wrong on CPUs, and its GPU code is what float32 tests there.
    return [DType.float32] if place.is_host else [DType.float32, DType.float16, DType.bfloat16]


class _Run:
    """One run: rows are kept as they are found, for it may be cut short."""

    def __init__(
        self,
        place: Any,
        names: list[str],
        peers: list[str],
        int8: bool,
        model: Path | None,
        results: Path,
    ) -> None:
        from max.dtype import DType

        from benchmarks.gpu.device import describe

        self.place = place
        self.names = names
        self.peers = peers
        self.int8 = int8
        self.model = model
        self.dtype = DType.float32 if place.is_host else DType.bfloat16
        self.failed = False
        described = describe(place)
        self.record = begin("gpu", "miniature" if place.is_host else "")
        if "name" in described:
            self.record.machine["name"] = slug(described["name"])
        self.results = results
        self.kept: dict[str, Any] = self.record.found
        self.kept |= {
            "device": described,
            "type": self.dtype.name,
            "kernels": [],
            "tokens": [],
            "limits": {},
            "peers": [],
            "cases": [],
        }

    def all(self) -> bool:
        """Checks, then times; whether all checks held."""
        with self._told("kernels"):
            self._check_kernels()
        with self._told("tokens"):
            self._check_tokens()
        with self._told("limits"):
            self._measure_limits()
        if self.kept["limits"]:
            for name in self.names:
                with self._told(name):
                    self._time(name)
        with self._told("transcription"):
            self._transcribe(self.model or _base())
        click.echo(f"kept in {self._write()}")
        return not self.failed

    def _check_kernels(self) -> None:
        from compat_tests.support.gpu_kernels import TOLERANCES, check_kernels

        for dtype in _types(self.place):
            with self._told(f"kernels in {dtype.name}"):
                for check in check_kernels(self.place, dtype):
                    good = check.error < TOLERANCES[dtype.name]
                    self.failed |= not good
                    row = {"kernel": check.name, "type": dtype.name, "error": check.error}
                    self._keep("kernels", {**row, "good": good})

    def _check_tokens(self) -> None:
        from benchmarks.gpu.cases import parity
        from benchmarks.gpu.models import SIZES as DIMENSIONS
        from benchmarks.gpu.models import int8_model, random_model

        d = DIMENSIONS["miniature"]
        models = {"float32": random_model(d)}
        if self.int8:
            models["int8_float32"] = int8_model(d)
        for compute_type, checkpoint in models.items():
            for row in parity(checkpoint, "miniature", compute_type, self.place):
                self.failed |= not row["same_tokens"]
                self._keep("tokens", row)

    def _measure_limits(self) -> None:
        from benchmarks.gpu.device import bandwidth, matrix_rate

        rates = matrix_rate(self.place, self.dtype, SIDE)
        size = 2**24 if self.place.is_host else 2**32
        self.kept["limits"] = {
            "operations_per_s": max(rate for rate in rates.values() if rate),
            "operations_per_s_by": rates,
            "bytes_per_s": bandwidth(self.place, size),
        }
        self._write()
        click.echo(json.dumps(self.kept["limits"]))

    def _time(self, name: str) -> None:
        from benchmarks.gpu import cases
        from benchmarks.gpu.models import SIZES as DIMENSIONS
        from benchmarks.gpu.peers import ask

        limits = cases.Limits(
            self.kept["limits"]["operations_per_s"], self.kept["limits"]["bytes_per_s"]
        )
        small = self.place.is_host
        tokens, minutes = (10, 1) if small else (100, 10)
        device = "cpu" if small else "cuda"
        counts = ["--tokens", str(tokens), "--batch", str(cases.BATCH)]
        peers = {p: ask(p, "--size", name, "--device", device, *counts) for p in self.peers}
        self._keep("peers", {"size": name, **peers})
        floats, int8 = self.dtype.name, f"int8_{self.dtype.name}"
        for compute_type in (floats, int8) if self.int8 else (floats,):
            with self._told(f"memory of {name}, {compute_type}"):
                self._keep("cases", cases.memory(name, compute_type, small, tokens))
        if self.int8:
            with self._told(f"{name}, {int8}"):
                model = cases.RandomModel(DIMENSIONS[name], int8, self.place)
                self._keep("cases", cases.step(model, name, limits, replay=True))
                self._keep("cases", cases.window(model, name, peers, tokens))
                row = cases.batched(model, name, peers, minutes=minutes, tokens=tokens)
                self._keep("cases", row)
                del model
        model = cases.RandomModel(DIMENSIONS[name], floats, self.place)
        timed: list[Callable[[], dict[str, Any]]] = [
            lambda: cases.step(model, name, limits),
            lambda: cases.step(model, name, limits, replay=True),
            lambda: cases.encoder(model, name, limits),
            lambda: cases.encoder(model, name, limits, batch=8),
            lambda: cases.window(model, name, peers, tokens),
            lambda: cases.batched(model, name, peers, minutes=minutes, tokens=tokens),
            lambda: cases.long_file(model, name, minutes=minutes / 2, tokens=tokens),
            lambda: cases.callers(model, name, tokens),
        ]
        for case in timed:
            with self._told(name):
                self._keep("cases", case())

    def _transcribe(self, model: Path) -> None:
        from benchmarks.gpu.cases import transcription

        audio = ROOT / "whisper_max_backend" / "assets" / "jfk.flac"
        small = self.place.is_host
        device, minutes = ("cpu", 0.5) if small else ("cuda", 10)
        for row in transcription(model, audio, device, self.dtype.name, minutes):
            self._keep("cases", row)

    def _keep(self, part: str, row: dict[str, Any]) -> None:
        self.kept[part].append(row)
        self._write()
        click.echo(json.dumps(row))

    def _write(self) -> Path:
        return self.record.keep(self.results)

    @contextlib.contextmanager
    def _told(self, name: str) -> Iterator[None]:
        """What fails is told and kept, and the run goes on: time on a GPU is short."""
        try:
            yield
        except Exception as error:
            self.failed = True
            self.kept.setdefault("failures", []).append({"part": name, "error": repr(error)})
            self._write()
            click.echo(f"{name} failed: {error!r}", err=True)


def _base() -> Path:
    """The real base model of the test extra."""
    from compat_tests.support.models import model_directory

    return model_directory("base")
