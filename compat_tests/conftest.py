"""What every test runs under."""

from __future__ import annotations

import os
import signal

# Plugins that happen to be installed have no say in the tests; those of the tests set this anew.
os.environ["WHISPER_MAX_PLUGINS"] = ""
# Nothing is asked of the Hugging Face hub: the tests stub it.
os.environ["HF_HUB_OFFLINE"] = "1"
# The matrices that tests multiply with NumPy are small: its threads would wait more than compute.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
# A shell that starts the tests in the background has interrupts ignored, by their processes, too.
signal.signal(signal.SIGINT, signal.default_int_handler)
