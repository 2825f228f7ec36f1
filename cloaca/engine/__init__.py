"""Executes workflows: plans what is ready, runs it, records it."""
