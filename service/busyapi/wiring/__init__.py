"""Settings to objects: how each role is put together."""
