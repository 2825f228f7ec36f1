"""A storm of SIGKILLs on a real daemon with twenty triggers, and what must be so afterwards."""
