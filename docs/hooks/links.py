"""Links from pages to files beside `docs`, which GitHub follows and a site must bring along."""

import re
from os.path import relpath
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[2]
# Pages of the site that are kept elsewhere.
PAGES = {
    "README.md": "index.md",
    "CHANGELOG.md": "changelog.md",
    "benchmarks/README.md": "benchmarks.md",
}
_LINK = re.compile(r"(?<=\]\()(?!\w+:|#)([^)\s#]+)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are kept elsewhere."""
    for path, uri in PAGES.items():
        files.append(File.generated(config, uri, abs_src_path=str(ROOT / path)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Point links at what the site has, and add the files that they name to it."""
    folder = Path(page.file.abs_src_path or ROOT).parent
    docs = Path(config.docs_dir)

    def link(found: re.Match[str]) -> Any:
        path = (folder / found[1]).resolve()
        if not path.is_file():
            return found[1]  # MkDocs tells what it is.
        if path.is_relative_to(docs):
            uri = path.relative_to(docs).as_posix()
        else:
            name = path.relative_to(ROOT).as_posix()
            uri = PAGES.get(name, f"files/{name}")
            if not files.get_file_from_path(uri):
                files.append(File.generated(config, uri, abs_src_path=str(path)))
        return relpath(uri, Path(page.file.src_uri).parent)

    return _LINK.sub(link, markdown)
