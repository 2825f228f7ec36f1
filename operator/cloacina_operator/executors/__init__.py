"""Starts and stops processes: what differs between a laptop and a cluster."""
