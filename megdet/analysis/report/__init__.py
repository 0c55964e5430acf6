"""The sections of a report that are neither a table nor a figure of the paper."""
