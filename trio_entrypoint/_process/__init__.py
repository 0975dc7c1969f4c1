"""The parts of `open_process`: `start` starts it, `lifecycle` ends it."""
