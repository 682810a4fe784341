"""Tiles, regions and canvases, as a service; without torch."""
