"""The scenarios, a module for each release that they share."""
