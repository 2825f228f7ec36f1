"""Library mode: a program that runs, schedules and polls its own workflows, over the same engine and store."""

from cloaca.engine.log import silent_by_default

silent_by_default()
