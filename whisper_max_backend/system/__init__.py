"""The process, its threads, its files and its processor; nothing here imports MAX."""
