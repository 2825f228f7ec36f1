"""Archives of workflows and triggers: built, read, checked, loaded. Importing this package itself loads nothing."""
