"""Parse runbooks, check their rules, run their commands, and find words not to use."""
