"""Where resources and archives live."""
