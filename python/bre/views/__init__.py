"""The views: an image set, or a network on it, to evidence per class.

`images` looks at the images alone, `model` at what a network answers to small patterns. Each turns its
material into one statistic per class and, for a class that is an outlier, into the images that carry the pattern.
Nothing here decides.
"""
