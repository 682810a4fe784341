"""Which code this is."""

from importlib.metadata import version

VERSION = version("handscroll")
