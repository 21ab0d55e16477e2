"""`busyapi archive …`: what a person does with an archive's files."""
