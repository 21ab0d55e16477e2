"""Load on a busyapi, local or on a cluster, and the proof that what was answered is archived."""
