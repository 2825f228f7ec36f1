"""The entry points of the runtime: what runs user code, each in a process of its own."""
