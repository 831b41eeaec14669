"""What `/` answers while there is no page: one small document that needs nothing else."""

from html import escape

RELOAD_S = 1

_DOCUMENT = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
{refresh}<link rel="icon" href="data:,">
<title>tapster</title>
<style>
body {{ margin: 0; min-height: 100vh; display: grid; place-content: center; text-align: center;
  font: 1rem/1.5 system-ui, sans-serif; }}
main {{ max-width: 34rem; padding: 1.5rem; }}
a {{ color: inherit; }}
</style>
</head>
<body><main>
<h1>tapster</h1>
<p>{message}</p>
<p>The API is at <code>/v1</code>; its description at <a href="docs">docs</a>.</p>
</main></body>
</html>
"""


def loading_html() -> str:
    """The page is on its way: the browser looks again every ``RELOAD_S`` seconds."""
    refresh = f'<meta http-equiv="refresh" content="{RELOAD_S}">\n'
    return _DOCUMENT.format(refresh=refresh, message="The page is loading …")


def missing_html(reason: str) -> str:
    """There will be no page, and why, in one line."""
    return _DOCUMENT.format(refresh="", message=escape(reason))
