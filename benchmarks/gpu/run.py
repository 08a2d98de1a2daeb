"""A run on a device, stage by stage, those that tell most first."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import click
from max.driver import Device
from max.dtype import DType

from benchmarks.gpu import cases
from benchmarks.gpu.device import bandwidth, describe, matrix_rate
from benchmarks.gpu.models import SIZES, int8_model, random_model
from benchmarks.gpu.peers import ask
from benchmarks.gpu.products import good, prove_products
from benchmarks.machine import slug
from benchmarks.record import ROOT, begin, read
from compat_tests.support.gpu_kernels import TOLERANCES, check_kernels
from compat_tests.support.models import model_directory
from whisper_max_backend.engine.compile.session import Session
from whisper_max_backend.engine.gpu.decoder import GPUDecoder
from whisper_max_backend.engine.gpu.proofs import proven

SIDE = 8192
"""Of the square matrices that the matrix rate is measured with."""

FIRST_CALL = ("products", "kernels", "limits", "encoder", "steps", "old")
SECOND_CALL = (
    *("window", "callers", "memory", "batched", "tokens", "transcription", "long", "pools"),
    *("int8_steps", "int8_window", "int8_batched"),
)
STAGES = (*FIRST_CALL, *SECOND_CALL)
"""In the order in which they are run."""


def types_of(place: Device) -> list[DType]:
    """What kernels are checked in."""
    # MAX's bfloat16 products are wrong on CPUs, and its GPU code is what float32 tests there.
    return [DType.float32] if place.is_host else [DType.float32, DType.float16, DType.bfloat16]


class Run:
    """One run: rows are kept as they are found, for it may be cut short.

    Args:
        place: The device.
        names: Sizes of models.
        peers: Whom to compare with.
        int8: Whether models with int8 weights are timed, too.
        model: A real model's directory; base of the `test` extra, where there is none.
        old: A checkout of another commit, whose encoder and steps are timed beside ours.
        results: Folder of the record.
        resume: Whether to add to the record that is there.
    """

    def __init__(
        self,
        place: Device,
        names: Sequence[str],
        peers: Sequence[str],
        int8: bool,
        model: Path | None,
        old: Path | None,
        results: Path,
        resume: bool,
    ) -> None:
        self.place, self.names, self.peers, self.int8 = place, names, peers, int8
        self.model, self.old, self.results = model, old, results
        self.dtype = DType.float32 if place.is_host else DType.bfloat16
        self.failed = False
        described = describe(place)
        self.record = begin("gpu", "miniature" if place.is_host else "")
        if "name" in described:
            self.record.machine["name"] = slug(described["name"])
        self.kept: dict[str, Any] = self.record.found
        self.kept |= {"device": described, "type": self.dtype.name, "limits": {}, "stages": []}
        self.kept |= {part: [] for part in ("products", "kernels", "tokens", "peers", "cases")}
        earlier = results / self.record.file_name
        if resume and earlier.is_file():
            self.kept |= read(earlier).found
        self._small = place.is_host
        self._models: dict[tuple[str, str], cases.RandomModel] = {}

    def all(self, stages: Sequence[str], seconds: float | None) -> bool:
        """Runs stages; whether all checks held.

        Args:
            stages: Of `STAGES`.
            seconds: After which none begins any more; the record names those that are left out.
        """
        start = time.monotonic()
        for stage in STAGES:
            if stage not in stages or (stage.startswith("int8") and not self.int8):
                continue
            begun = time.monotonic()
            if seconds is not None and begun - start > seconds:
                self._keep("stages", {"stage": stage, "left_out": True})
                continue
            with self._told(stage):
                getattr(self, f"_{stage}")()
            self._keep("stages", {"stage": stage, "seconds": time.monotonic() - begun})
        click.echo(f"kept in {self._write()}")
        return not self.failed

    def _products(self) -> None:
        self.kept["tensor_cores"] = proven(self.place, self.dtype, Session([self.place]))
        self._write()
        for proof in prove_products(self.place, self.dtype, 3 if self._small else 50):
            held = good(proof, self.dtype)
            self.failed |= not held
            row = {"product": proof.name, "type": self.dtype.name, "error": proof.error}
            self._keep("products", {**row, "same_bits": proof.same, "good": held})

    def _kernels(self) -> None:
        for dtype in types_of(self.place):
            with self._told(f"kernels in {dtype.name}"):
                for check in check_kernels(self.place, dtype):
                    held = check.error < TOLERANCES[dtype.name]
                    self.failed |= not held
                    row = {"kernel": check.name, "type": dtype.name, "error": check.error}
                    self._keep("kernels", {**row, "good": held})

    def _tokens(self) -> None:
        d = SIZES["miniature"]
        models = {"float32": random_model(d)}
        if self.int8:
            models["int8_float32"] = int8_model(d)
        for compute_type, checkpoint in models.items():
            for row in cases.parity(checkpoint, "miniature", compute_type, self.place):
                self.failed |= not row["same_tokens"]
                self._keep("tokens", row)

    def _limits(self) -> None:
        rates = matrix_rate(self.place, self.dtype, SIDE)
        self.kept["limits"] = {
            "operations_per_s": max(rate for rate in rates.values() if rate),
            "operations_per_s_by": rates,
            "bytes_per_s": bandwidth(self.place, 2**24 if self._small else 2**32),
        }
        self._write()
        click.echo(json.dumps(self.kept["limits"]))

    def _encoder(self) -> None:
        for name, model in self._each_model():
            for batch in (1, 8):
                self._keep("cases", cases.encoder(model, name, self._measured, batch))

    def _steps(self) -> None:
        for name, model in self._each_model():
            for ahead in (1, GPUDecoder.steps_ahead):
                self._keep("cases", cases.step(model, name, self._measured, True, ahead))
            self._keep("cases", cases.step(model, name, self._measured))

    def _old(self) -> None:
        """The same of another checkout, in a process of its own."""
        if self.old is None:
            return
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, "-m", "benchmarks", "gpu", "--results", folder]
            command += ["--device", "cpu" if self._small else "gpu", "--stages"]
            command += ["limits,encoder,steps", "--peers", "", "--no-int8"]
            command += [] if self._small else ["--sizes", ",".join(self.names)]
            result = subprocess.run(
                command,
                cwd=self.old,
                env={**os.environ, "PYTHONPATH": str(self.old.resolve())},
                capture_output=True,
                text=True,
                check=False,
            )
            paths = list(Path(folder).glob("*.json"))
            if not paths:
                raise RuntimeError(f"{self.old}: {result.stderr.strip()[-500:]}")
            record = read(paths[0])
        self.kept["old"] = {"commit": record.commit, "cases": record.found["cases"]}
        self._write()

    def _window(self) -> None:
        for name, model in self._each_model():
            self._keep("cases", cases.window(model, name, self._peers_of(name), self._count))

    def _callers(self) -> None:
        for name, model in self._each_model():
            self._keep("cases", cases.callers(model, name, self._count))

    def _memory(self) -> None:
        floats = self.dtype.name
        for name in self.names:
            for compute_type in (floats, f"int8_{floats}") if self.int8 else (floats,):
                with self._told(f"memory of {name}, {compute_type}"):
                    row = cases.memory(name, compute_type, self._small, self._count)
                    self._keep("cases", row)

    def _pools(self) -> None:
        for pool in cases.POOLS:
            with self._told(f"memory with {pool} pool"):
                name, floats = self.names[-1], self.dtype.name
                row = cases.memory(name, floats, self._small, self._count, pool)
                self._keep("cases", row)

    def _batched(self, kept: str = "") -> None:
        minutes = 1 if self._small else 10
        for name, model in self._each_model(kept):
            row = cases.batched(
                model, name, self._peers_of(name), minutes=minutes, tokens=self._count
            )
            self._keep("cases", row)

    def _long(self) -> None:
        minutes = 0.5 if self._small else 5
        for name, model in self._each_model():
            self._keep("cases", cases.long_file(model, name, minutes, self._count))

    def _transcription(self) -> None:
        audio = ROOT / "whisper_max_backend" / "assets" / "jfk.flac"
        device, minutes = ("cpu", 0.5) if self._small else ("cuda", 10)
        model = self.model or model_directory("base")
        for row in cases.transcription(model, audio, device, self.dtype.name, minutes):
            self._keep("cases", row)

    def _int8_steps(self) -> None:
        for name, model in self._each_model("int8_"):
            self._keep("cases", cases.step(model, name, self._measured, replay=True))

    def _int8_window(self) -> None:
        for name, model in self._each_model("int8_"):
            self._keep("cases", cases.window(model, name, self._peers_of(name), self._count))

    def _int8_batched(self) -> None:
        self._batched("int8_")

    @property
    def _count(self) -> int:
        """Tokens that a window says."""
        return 10 if self._small else 100

    @property
    def _measured(self) -> cases.Limits:
        limits = self.kept["limits"]
        if not limits:
            raise RuntimeError("the stage `limits` has not been run")
        return cases.Limits(limits["operations_per_s"], limits["bytes_per_s"])

    def _each_model(self, kept: str = "") -> Iterator[tuple[str, cases.RandomModel]]:
        """Every size's, loaded once; one that fails is told, and the others come."""
        compute_type = f"{kept}{self.dtype.name}"
        for name in self.names:
            key = (name, compute_type)
            if key not in self._models:
                with self._told(f"{name}, {compute_type}"):
                    self._models[key] = cases.RandomModel(SIZES[name], compute_type, self.place)
            if key in self._models:
                yield name, self._models[key]

    def _peers_of(self, name: str) -> dict[str, Any]:
        """What peers took with a size: they are asked once."""
        for row in self.kept["peers"]:
            if row["size"] == name:
                return {peer: row[peer] for peer in self.peers if peer in row}
        counts = ["--tokens", str(self._count), "--batch", str(cases.BATCH)]
        device = "cpu" if self._small else "cuda"
        answers = {p: ask(p, "--size", name, "--device", device, *counts) for p in self.peers}
        self._keep("peers", {"size": name, **answers})
        return answers

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
