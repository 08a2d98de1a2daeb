"""Names of files that hold sound or film."""

from __future__ import annotations

SUFFIXES = frozenset(
    (
        *(".aac", ".aif", ".aiff", ".amr", ".au", ".caf", ".flac", ".m4a", ".m4b", ".mka", ".mp2"),
        *(".mp3", ".oga", ".ogg", ".opus", ".wav", ".wma"),
        *(".avi", ".flv", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".ts", ".webm", ".wmv"),
    )
)
"""What is taken from a folder; files named one by one may have any suffix."""
