"""Build, sign, push and verify a release.

`source` checks the tagged commit and exports it, `distributions` and `chart` build from the export,
`image` builds the container image, `sbom` lists what the image and the lock contain, `checksums`
and `signing` cover all files, `registry` pushes image and chart and pulls them again.
"""
