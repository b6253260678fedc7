"""The example's server: settings, then a call. `python -m serving` takes the flags of `skewguard serve`."""
