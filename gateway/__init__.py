"""The HTTP edge: XYZ tiles, canvases, events and the viewer. No torch, no Ray."""
