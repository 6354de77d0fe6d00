"""Days on virtual time: the real deployment in one process, replayed in seconds."""
