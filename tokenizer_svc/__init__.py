"""Pixels to tokens and back, and words to vectors, as a service."""
