"""bre in other people's programs: one module for each, which imports it."""
