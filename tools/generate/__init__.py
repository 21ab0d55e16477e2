"""Generated files: `python -m tools.generate [--check] [NAME…]`, or `make generate`.

A generator is a module with `files(root)`, which returns the text of each file that it owns, by its
path below the repository. It reads its sources below `root` and writes nothing. What it does not
return but `OWNED` matches is deleted. `__main__` writes, or compares.
"""
