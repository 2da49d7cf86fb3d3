"""What a user calls, one verb to a file: `screen`, `detect`, `cleanse`. `bre` gives their names on first use.

`checks`, `verdict` and `findings` hold what `screen` and `detect` have in common.
"""
