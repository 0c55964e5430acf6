"""The sections of a report besides the paper's tables and figures."""
