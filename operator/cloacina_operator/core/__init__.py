"""What is decided, and nothing else. Pure: no I/O, no clock, no logging."""
