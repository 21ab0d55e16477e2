"""What every port shares: connections and their bounds, requests, errors, a stop that holds."""
