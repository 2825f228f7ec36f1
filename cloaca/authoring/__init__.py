"""What authors write against: contexts, tasks, workflows, triggers. No I/O, and cheap to import."""
