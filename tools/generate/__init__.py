"""Generated files: `python -m tools.generate [--check] [NAME…]`, or `make generate`.

A generator is a module with `render_files(root)`, which returns the text of each file that it owns,
by its path below the repository. It reads its sources below `root` and writes nothing. `__main__`
writes the files or compares them. It deletes a file that `OWNED` matches and no generator returns.
"""
