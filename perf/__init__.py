"""What bench/ and loadtest/ share: load, stacks, machine figures and reconciliation."""
