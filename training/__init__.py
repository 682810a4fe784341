"""Data, training and evaluation of the models that Handscroll ships; one command each."""
