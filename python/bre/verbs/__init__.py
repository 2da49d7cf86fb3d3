"""What a user calls, one verb to a file: `screen`, `detect`, `cleanse`. `bre` gives their names on first use.

In `judging` is what `screen` and `detect` have in common.
"""
