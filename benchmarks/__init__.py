"""One module per figure that the project claims. Every one takes `--quick` and prints one JSON line last."""
