"""A program's first words: imports, a model, a file decoded, its first segment printed.

``python first_text.py MODULE FOLDER FILE THREADS TYPE``; alone, so that it may run where this
package is installed and these benchmarks are not.
"""

import sys
from importlib import import_module


def main(module: str, folder: str, file: str, threads: str, compute_type: str) -> None:
    model = import_module(module).WhisperModel(
        folder, device="cpu", compute_type=compute_type, cpu_threads=int(threads)
    )
    segments, _ = model.transcribe(file, language="en", temperature=0.0)
    print(next(iter(segments)).text, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
