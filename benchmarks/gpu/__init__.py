"""Everything that only a GPU can show, in one command: `python -m benchmarks.gpu`.

A part is a module here with a generator `measure(bench)` of `Found` numbers. Each part runs in a process of its own,
with a budget of seconds: what fails, hangs or takes too long spoils nothing else.
"""
