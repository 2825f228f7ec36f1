"""Executing workflows: pure planning, driving a run, recording it."""
