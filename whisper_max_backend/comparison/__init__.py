"""Backends side by side on the same audio: what `whisper-max compare` and the demo share.

`choices.py` is what can be compared, `worker.py` the process in which a backend runs, `meters.py`
what that process uses, `words.py` how texts differ; `measure.py` takes the figures, `terminal.py`
and `report.py` show them.
"""
