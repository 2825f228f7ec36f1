"""The command line, ``cloaca``: each command in a module of its own, imported when it is called."""
