"""busyapi: takes inhaler usages, gives each an id, keeps every one it answered for."""
