"""Gathers what a decision needs, performs what was decided, writes status once."""
