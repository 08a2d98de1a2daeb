"""Programs that use faster-whisper, run as their users run them: stock, and swapped in."""
