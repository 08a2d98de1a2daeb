"""Corpora: many hours of audio on many machines, by Ray.

Data walks one way: inputs (readers/) → plan.py, which puts their recordings into shards → run.py,
which gives shards to the actors of Ray → transcribe.py, in each actor → shards.py, where a finished
shard is written → report.py.
"""

from ..hookspecs import Reader, Row, Writer

__all__ = ["Reader", "Row", "Writer"]
