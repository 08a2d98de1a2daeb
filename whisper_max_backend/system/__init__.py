"""The process, its threads, its files and its processor: what nothing of MAX is needed for."""
