"""Readers of the formats that Whisper models come in.

Each takes `Files` and gives `Contents`; `checkpoint.py` picks one, checks and finishes its result.
"""
