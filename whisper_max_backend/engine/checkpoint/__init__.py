"""Readers of the formats that Whisper models come in.

Each takes `Files` and gives `Contents`; `load` picks one, has it checked and finishes its result.
"""
