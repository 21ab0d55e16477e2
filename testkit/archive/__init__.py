"""Build archives for tests, damage them, and kill their writers."""
