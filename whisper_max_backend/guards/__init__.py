"""Takes out of a transcription what nobody said, and puts in what it has left out.

A guard judges a segment by figures: how much speech Silero hears, how fast words come, how often
a phrase is repeated. No guard knows any phrase.

Most programs never ask for one, so its modules are imported by their names, when one is wanted.
"""
