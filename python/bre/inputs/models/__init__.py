"""Classifiers: opened, checked and run by `open_model`, from files, programs and modules."""
