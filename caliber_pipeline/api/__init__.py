"""The classes that a script or a notebook imports."""
