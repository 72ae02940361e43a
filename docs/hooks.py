"""Makes one site of the Markdown files in docs/ and those beside the code they describe.

Links are written as they work in a checkout. On the site, a link to another page leads to that
page, and a link to any other file to a copy of it.
"""

from __future__ import annotations

import os.path
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
#: Pages outside docs/, and where they are on the site.
PAGES = {
    "README.md": "index.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "configs/own_data/README.md": "own_data.md",
    "configs/otseg/README.md": "methods/otseg.md",
    "configs/zegot/README.md": "methods/zegot.md",
    "configs/zegclip/README.md": "methods/zegclip.md",
    "configs/ablations/README.md": "methods/ablations.md",
    "configs/cross_dataset/README.md": "methods/cross_dataset.md",
    "configs/open_vocabulary/README.md": "methods/open_vocabulary.md",
    "configs/shapes/README.md": "shapes/index.md",
    "configs/shapes/clip/README.md": "shapes/clip.md",
    "configs/shapes/checkpoint/README.md": "shapes/checkpoint.md",
    "tools/benchmarks/README.md": "speed.md",
}
LINK = re.compile(r"(?<=\]\()(?!\w+:)([^)#\s]+)")
ROLE = re.compile(r":(?:class|exc|func|meth|mod):<code>~?(?:[\w.]+\.)?(\w+)</code>")


def on_files(files: Files, config: Any) -> Files:
    """Add the pages outside docs/, and every file that a page links to."""
    for path, page in PAGES.items():
        files.append(File.generated(config, page, abs_src_path=str(ROOT / path)))
    for page in list(files.documentation_pages()):
        for link in LINK.findall(page.content_string):
            path = _resolve(link, page.src_uri)
            if _on_site(path) not in files.src_uris and (ROOT / path).is_file():
                file = File.generated(config, _on_site(path), abs_src_path=str(ROOT / path))
                files.append(file)
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Turn links between files of the project into links between places of the site."""
    here = page.file.src_uri

    def on_site(match: re.Match[str]) -> str:
        target = _on_site(_resolve(match[0], here))
        return os.path.relpath(target, os.path.dirname(here) or ".")

    return LINK.sub(on_site, markdown)


def on_page_content(html: str, **_: Any) -> str:
    """Docstrings are written for Sphinx, too: leave the name of a reference alone."""
    return ROLE.sub(r"<code>\1</code>", html)


def _resolve(link: str, page: str) -> str:
    """The path in the project that a link of a page leads to."""
    source = next((path for path, name in PAGES.items() if name == page), f"docs/{page}")
    return os.path.normpath(os.path.join(os.path.dirname(source), link))


def _on_site(path: str) -> str:
    """Where a file of the project is on the site."""
    return PAGES.get(path) or (path[5:] if path.startswith("docs/") else f"files/{path}")
