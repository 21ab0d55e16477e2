"""`python -m bench`: measure busyapi on this machine next to a no-op of Sanic."""
