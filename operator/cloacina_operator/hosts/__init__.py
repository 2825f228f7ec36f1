"""Programs: read settings, wire the parts, run."""
