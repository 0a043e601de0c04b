"""Model folders: where they come from, what identifies them, how their layers spend KV memory.

Importing this package loads nothing; each module names its own cost.
"""
