"""Every stage and whole transcriptions on the CPU, in turns with stock faster-whisper."""
