"""The example's pipelines: settings, then calls into `skewguard`. No arithmetic here."""
