"""Library mode: a program that runs, schedules and polls its own workflows, over the same engine and store."""
