"""Readers of the formats that Whisper models come in.

Each takes `Files` and gives `Contents`; `load.py` picks one, has it checked and finishes its result.
"""
