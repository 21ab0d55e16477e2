"""The layer under every port."""
