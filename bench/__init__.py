"""`python -m bench`: how fast busyapi is on this machine, beside Sanic answering nothing."""
