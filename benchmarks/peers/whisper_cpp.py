"""whisper.cpp through pywhispercpp, on a file that is written here."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.machine import cores
from benchmarks.peers import Model, Transcribe, missing
from benchmarks.peers.converted import converted
from benchmarks.peers.ggml import save

_GREEDY, _BEAM_SEARCH = 0, 1


@dataclass(frozen=True)
class WhisperCpp:
    """`storage` is what the matrices are kept in: "q8_0" or "f16"."""

    storage: str

    @property
    def name(self) -> str:
        return f"whisper.cpp {self.storage}"

    def why_absent(self) -> str:
        return missing("pywhispercpp")

    def load(self, model: Model) -> Transcribe:
        from pywhispercpp.model import Model as Loaded

        folder = converted(model, f"ggml-{self.storage}", functools.partial(self._save, model))
        by_beams: dict[int, Any] = {}

        def transcribe(samples: np.ndarray, beams: int) -> str:
            if beams not in by_beams:  # a loaded model has a strategy
                by_beams.clear()
                strategy: dict[str, Any] = {"params_sampling_strategy": _GREEDY}
                if beams > 1:
                    strategy = {
                        "params_sampling_strategy": _BEAM_SEARCH,
                        "beam_search": {"beam_size": beams, "patience": -1.0},
                    }
                by_beams[beams] = Loaded(
                    str(folder / "model.bin"),
                    redirect_whispercpp_logs_to=None,
                    print_progress=False,
                    n_threads=cores(),
                    language="en",
                    temperature=0.0,
                    temperature_inc=0.0,
                    no_context=True,
                    **strategy,
                )
            return " ".join(segment.text for segment in by_beams[beams].transcribe(samples))

        return transcribe

    def _save(self, model: Model, target: Path) -> None:
        target.mkdir()
        save(model, self.storage, target / "model.bin")
