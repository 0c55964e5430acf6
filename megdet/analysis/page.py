"""A page of HTML on its own."""

from __future__ import annotations

import html


def page(title: str, body: str) -> str:
    """A page of HTML on its own: nothing in it is loaded from elsewhere."""
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>{html.escape(title)}</title>
<style>
body {{ font: 15px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 92rem; padding: 0 1rem; color: #222; }}
h2 {{ border-bottom: 1px solid #ccc; margin-top: 2.5rem; padding-bottom: .2rem; }}
.wide {{ overflow-x: auto; }}
table {{ border-collapse: collapse; margin: .6rem 0; font-variant-numeric: tabular-nums; }}
caption {{ text-align: left; font-weight: 600; padding-bottom: .4rem; }}
th, td {{ padding: .25rem .6rem; text-align: right; }}
td {{ white-space: nowrap; }}
th {{ vertical-align: bottom; }}
th:first-child, td:first-child {{ text-align: left; }}
thead th {{ border-bottom: 1.5px solid #222; }}
tbody tr:nth-child(even) {{ background: #f4f4f4; }}
p {{ color: #555; font-size: .9em; }}
figure {{ margin: 1.5rem 0; text-align: center; }}
figure svg {{ height: auto; max-width: 100%; }}
pre {{ background: #f4f4f4; overflow-x: auto; padding: .6rem; font-size: .85em; }}
</style>
</head>
<body>
{body}
</body>
</html>
"""
