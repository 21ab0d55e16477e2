"""busyapi: takes inhaler usages, gives each an id, and keeps every acknowledged one."""
