"""``python -m whisper_max_backend`` is the command `whisper-max`."""

from .cli import main

main(prog_name="whisper-max")
