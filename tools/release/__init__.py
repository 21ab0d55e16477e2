"""Build, sign, push and verify a release.

`source` checks the tagged commit and exports it, `packages` builds packages and chart from it,
`image` builds the container image, `sbom` lists what the image and the lock contain, `checksums`
and `signing` cover all files, `registry` pushes image and chart and pulls them again.
"""
