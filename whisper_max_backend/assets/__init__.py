"""Files that come with the package."""

from pathlib import Path

SAMPLE = Path(__file__).with_name("jfk.flac")
"""Eleven seconds of English speech."""
