"""Executing workflows: pure planning, driving a run, recording it, and DefaultRunner."""

import logging

logging.getLogger("cloaca").addHandler(logging.NullHandler())  # silent, unless the program configures logging
