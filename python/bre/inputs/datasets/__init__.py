"""Image sets, one format to a file, named by the format.

`imageset` is what they become; `open_dataset` tells the formats apart.
"""
