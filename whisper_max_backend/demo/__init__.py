"""The web page of `whisper-max demo`: backends side by side on the visitor's own audio.

`server.py` serves, `visitors.py` keeps visitors apart, `app.py` is the page and `rendering.py` and
`plots.py` what it shows; `runs.py` is a comparison under way, `worker.py` the process in which a
backend runs, `recording.py` what comes in, `choices.py` what can be compared.
"""
