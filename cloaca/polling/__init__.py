"""Polls trigger functions: keeps time, records fires before they count, and survives what user code does."""
