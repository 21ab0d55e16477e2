"""Code that every port shares: connections and their limits, requests, errors, the stop."""
