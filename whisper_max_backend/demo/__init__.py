"""The web page of `whisper-max demo`: backends side by side on the visitor's own audio.

`server.py` serves; `visitors.py` keeps visitors apart, `addresses.py` strangers out, `uploads.py`
their files, in a `folder.py`, and `sessions.py` their pages; `app.py` is the page and
`rendering.py` and `plots.py` what it shows; `recording.py` is what comes in and `decoding.py` reads
it, `runs.py` is a comparison under way, `turns.py` the line before it, `figures.py` and
`history.py` what comes of it; `live_tab.py` is the tab for who speaks, `microphone.js` its
microphone, and `speakers.py` are who they are.
What can be compared, and the processes of the backends, are `whisper_max_backend.comparison`'s.
"""
