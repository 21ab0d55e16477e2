"""`busyapi archive …`: what an operator does with an archive's files."""
