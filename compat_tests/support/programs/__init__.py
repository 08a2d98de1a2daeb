"""The programs that use faster-whisper: how each is installed, called and answered."""
