"""Archives built, damaged and killed for tests."""
