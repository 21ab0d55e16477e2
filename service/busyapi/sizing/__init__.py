"""`busyapi sizing`: from a rate to pods, memory and disk."""
