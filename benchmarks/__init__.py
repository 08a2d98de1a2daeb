"""How fast this package is beside stock faster-whisper, measured in the same run."""
