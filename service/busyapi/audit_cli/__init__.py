"""`busyapi audit …`: the commands with which an auditor works on the trail."""
