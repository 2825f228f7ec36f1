"""The exit codes of a run's process. Nothing else, so that whoever reads them need not load what writes them."""

ENDED = 0
"""A terminal phase was recorded."""
INTERRUPTED = 75
"""Asked to stop; what was finished is recorded, and another process resumes."""
LOST = 76
"""The run belongs to another process, was ended or was deleted: nothing to do here."""
