"""On-demand views: `feast.py` makes them of transforms."""
