"""How fast and how exact this package is, beside stock faster-whisper in the same run."""
