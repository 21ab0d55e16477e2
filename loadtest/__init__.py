"""Load on a busyapi, local or on a cluster, with a check that answered usages are archived."""
