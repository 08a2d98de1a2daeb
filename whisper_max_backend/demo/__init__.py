"""The web page of `whisper-max demo`: backends side by side on the visitor's own audio.

`server.py` serves, `visitors.py` keeps visitors apart and `sessions.py` their pages; `app.py` is
the page and `rendering.py` and `plots.py` what it shows; `recording.py` is what comes in, `runs.py`
a comparison under way, `turns.py` the line before it, `figures.py` and `history.py` what comes of
it.
What can be compared, and the processes of the backends, are `whisper_max_backend.comparison`'s.
"""
