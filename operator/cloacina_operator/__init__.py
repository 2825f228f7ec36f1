"""The operator: reconciles packages, triggers and runs, on a laptop and on a cluster."""
