"""Write the page of `dvc plots show` with Vega in it, so that it renders offline; DVC's own links to a CDN.

uv run --no-project --with vl-convert-python==1.9.0.post1 python .dvc/plots/make_page.py
"""

from pathlib import Path

import vl_convert

PAGE = """<!DOCTYPE html>
<!-- Made by make_page.py beside it. Vega, Vega-Lite and Vega-Embed: BSD-3-Clause, (c) University of Washington
     Interactive Data Lab. -->
<html>
<head>
    {refresh_tag}
    <meta charset="utf-8">
    <title>DeepMerge plots</title>
    <script>(function () {
SCRIPTS
    })();
    </script>
    <style>table { border-spacing: 15px; } body { font-family: sans-serif; }</style>
</head>
<body>
    {plot_divs}
</body>
</html>
"""

# DVC's templates are Vega-Lite 5.
scripts = vl_convert.javascript_bundle(vl_version="5.21").replace("</script>", "<\\/script>")
Path(__file__).with_name("offline.html").write_text(PAGE.replace("SCRIPTS", scripts))
