"""What the site needs beyond Markdown: files of the repository that pages link to are part of it."""

from __future__ import annotations

import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

_LINK_OUT = re.compile(r"\]\(\.\./([\w./-]+)")
_WITHIN_SITE = "repository/"


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the files outside of docs/ that pages link to."""
    root = Path(config.docs_dir).parent
    pages = [Path(page.abs_src_path).read_text() for page in files.documentation_pages() if page.abs_src_path]
    for name in sorted({name for page in pages for name in _LINK_OUT.findall(page)}):
        files.append(File.generated(config, f"{_WITHIN_SITE}{name}.txt", abs_src_path=str(root / name)))
    return files


def on_page_markdown(markdown: str, **_: object) -> str:
    """Points links that lead out of docs/ at those files; with .txt, browsers show them."""
    return _LINK_OUT.sub(rf"]({_WITHIN_SITE}\1.txt", markdown)
