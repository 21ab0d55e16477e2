"""The chart and the kustomize base as text: what is rendered, refused and said. No cluster."""
