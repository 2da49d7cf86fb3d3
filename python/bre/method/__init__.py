"""The method, on arrays: whitening, near duplicates, clusters, patterns in several classes, recovery, carriers.

`stats` and `linalg` are what they stand on. Nothing here knows of datasets, models or reports.
"""
