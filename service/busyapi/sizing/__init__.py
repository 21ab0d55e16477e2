"""`busyapi sizing`: pods, memory and disk for a rate of usages."""
