"""A process that fuzzes one target with libFuzzer: `python -m compat_tests.fuzz.worker`.

Exceptions are kept and counted, and the process goes on. A crash or a hang ends it; libFuzzer
writes the input first.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import atheris

from compat_tests.fuzz.bundle import unpack
from compat_tests.fuzz.mutate import mutate
from compat_tests.fuzz.watch import HANG_SECONDS, Watch

# Whose branches libFuzzer is to explore.
_INSTRUMENTED = (
    "whisper_max_backend.audio",
    "whisper_max_backend.engine.checkpoint",
)
_FLAGS = (
    f"-timeout={HANG_SECONDS:.0f}",
    "-rss_limit_mb=0",  # `Watch` measures every input, libFuzzer once a second
    f"-max_len={1 << 20}",
    "-mutate_depth=3",
    "-use_cmp=0",  # compared values include names of temporary files, other ones each time
    "-reload=0",
    "-verbosity=0",
)


def main(
    target: str, scratch: str, findings: str, runs: str, seconds: str, seed: str, repeat: str
) -> None:
    """Run libFuzzer, which ends the process; `scratch` keeps the inputs that it goes on from.

    With `repeat`, all inputs are made of sound ones, and so are the same whatever the code does.
    """
    with atheris.instrument_imports(include=list(_INSTRUMENTED)):
        module = importlib.import_module(f"compat_tests.fuzz.{target}")
    module.prepare()
    sound = module.seeds()
    corpus, seeds = Path(scratch, "corpus"), Path(scratch, "seeds")
    for folder in (corpus, seeds):
        folder.mkdir(exist_ok=True)
    for index, data in enumerate(sound):
        (seeds / f"{index:02}").write_bytes(data)
        assert module.check(unpack(data)) == module.SOUND
    watch = Watch(Path(findings), Path(scratch, "counts.json"), target)

    def one(data: bytes) -> int:
        files = unpack(data)
        if not files:
            return -1
        watch.run(data, lambda: module.check(files))
        return -1 if repeat else 0

    def change(data: bytes, max_size: int, seed: int) -> bytes:
        return mutate(data, max_size, seed, sound, atheris.Mutate)

    if int(runs) > 0:
        runs = str(int(runs) + 1)  # libFuzzer counts an empty input that it starts with
    # A seed of 0 would stand for the time.
    chosen = (f"-runs={runs}", f"-max_total_time={seconds}", f"-seed={int(seed) + 1}")
    artifacts = f"-artifact_prefix={findings}/{target}-"
    atheris.Setup(
        [target, *_FLAGS, *chosen, artifacts, str(corpus), str(seeds)], one, custom_mutator=change
    )
    atheris.Fuzz()


if __name__ == "__main__":
    main(*sys.argv[1:])
