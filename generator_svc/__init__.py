"""Draws patches: the outer loop for many askers at once, on Ray, committed to the store."""
