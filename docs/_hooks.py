"""What the documentation site is made of, for MkDocs: the repository's own pages, and a reference made from ``__all__``.

The site's tree is the repository's, so a link that leads somewhere on a code host leads to the same file here. What is
in it follows from the links: README, the pages in docs/, and whatever they link to, one after another.
"""

from __future__ import annotations

import ast
import os
import re
from html.parser import HTMLParser
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files

ROOT = Path(__file__).parents[1]
PACKAGE = "apportion"
REFERENCE = "reference"
# Elements whose address a browser loads by itself; a plain link is followed only by a reader.
LOADED = {
    "script": "src", "img": "src", "iframe": "src", "source": "src", "video": "src", "audio": "src", "embed": "src",
    "link": "href", "object": "data", "use": "href", "image": "href",
}  # fmt: skip
# What lies elsewhere; `link rel=canonical` and the like only name an address.
ELSEWHERE = re.compile(r"(?:https?:)?//", re.IGNORECASE)
NAMING = {"canonical", "alternate", "author", "license", "next", "prev"}
# What a page is made of. Any other element is a formula such as <g_i, u>, which a browser would not show.
ELEMENTS = set(
    re.findall(
        r"\w+",
        """a article aside autoref b blockquote body br button code dd del details div dl dt em footer form h1 h2 h3 h4
        h5 h6 head header hr html i img input kbd label li link main meta nav ol p path pre script section small span
        strong style sub summary sup svg table tbody td th thead title tr ul""",
    )
)


def outside_code(markdown: str) -> str:
    """Return a page's text without its code: fenced blocks, indented blocks and code spans."""
    text = re.sub(r"^(```|~~~).*?^\1\s*$", "", markdown, flags=re.MULTILINE | re.DOTALL)
    text = re.sub(r"(?:^|(?<=\n\n))(?: {4}.*\n+)+", "\n", text)
    return re.sub(r"`[^`\n]*`", "", text)


def linked(root: Path, page: str) -> list[str]:
    """Return what a page links to in the repository, as paths from its root, in order."""
    text = outside_code((root / page).read_text("utf-8"))
    targets = re.findall(r"\]\((?!\w+:|#)([^)#\s]+)[^)]*\)", text)
    return [os.path.normpath(PurePosixPath(page).parent / target).replace(os.sep, "/") for target in targets]


def tree(root: Path) -> dict[str, str | None]:
    """Return the site's files below ``root``: path to content, or None where it is the file's own.

    They are README, docs/ and all that these link to. A folder that is linked to becomes a page that lists its files.
    """
    found: dict[str, str | None] = {}
    waiting = ["README.md", *(f"docs/{page.name}" for page in sorted((root / "docs").glob("*.md")))]
    while waiting:
        path = waiting.pop(0)
        if (root / path).is_dir():
            path = f"{path}/README.md"
        if path in found or path.startswith(".."):
            continue
        if path.endswith("/README.md") and not (root / path).exists():
            found[path] = listing(root, path.removesuffix("/README.md"))
            waiting += [f"{path.removesuffix('/README.md')}/{name}" for name in names(root, path)]
        elif (root / path).is_file():
            found[path] = None
            waiting += linked(root, path) if path.endswith(".md") else []
    return found


def names(root: Path, page: str) -> list[str]:
    """Return the files beside and below a folder's page, by name."""
    folder = (root / page).parent
    return sorted(
        file.relative_to(folder).as_posix()
        for file in folder.rglob("*")
        if file.is_file() and not any(part.startswith((".", "_")) for part in file.relative_to(folder).parts)
    )


def listing(root: Path, folder: str) -> str:
    """Return a page that links to each file of a folder."""
    lines = [f"- [{name}]({name})" for name in names(root, f"{folder}/README.md")]
    return "\n".join([f"# {folder}", "", *lines, ""])


def to_pages(markdown: str, page: str, pages: dict[str, str | None]) -> str:
    """Return a page's text with links to folders turned into links to these folders' pages."""

    def mended(match: re.Match[str]) -> str:
        target = os.path.normpath(PurePosixPath(page).parent / match[1]).replace(os.sep, "/")
        return f"]({match[1].rstrip('/')}/README.md)" if f"{target}/README.md" in pages else match[0]

    return re.sub(r"\]\((?!\w+:|#)([^)#\s]+)\)", mended, markdown)


def public(source: Path) -> dict[str, dict[str, str]]:
    """Return the public names: package with an ``__all__`` to name to the module that it comes from.

    The packages are read and not imported, so neither torch nor transformers is needed.

    Args:
        source: The folder that holds the package ``apportion``.
    """
    found = {}
    for file in sorted((source / PACKAGE).rglob("__init__.py")):
        package = ".".join(file.parent.relative_to(source).parts)
        body = ast.parse(file.read_text("utf-8")).body
        listed = [node for node in body if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__"]
        if listed and not any(part.startswith("_") for part in package.split(".")):
            origin = dict(imported(body))
            found[package] = {name: origin.get(name, package) for name in ast.literal_eval(listed[0].value)}
    return found


def imported(body: list[ast.stmt]) -> list[tuple[str, str]]:
    """Return name and module of each ``from module import name``, those for type checkers included."""
    nodes = [inner for node in body for inner in (node.body if isinstance(node, ast.If) else [node])]
    return [
        (alias.asname or alias.name, str(node.module))
        for node in nodes
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    ]


def reference(source: Path) -> dict[str, str]:
    """Return the pages of the API reference: path to Markdown, one a package, each public name once.

    A name that several packages offer stands on the page of the lowest one that it comes from; the others link to it.
    """
    packages = public(source)
    pages = {}
    for package, known in packages.items():
        lines = [f"# {package}", "", f"::: {package}", "    options: {members: false, show_root_heading: false}", ""]
        for name, module in known.items():
            if f"{package}.{name}" in packages:
                lines += [f"- [`{name}`]({package}.{name}.md), a package", ""]
            elif module != package and name in packages.get(module, {}):
                lines += [f"- [`{name}`][{module}.{name}], of [`{module}`]({module}.md)", ""]
            else:
                lines += [f"::: {package}.{name}", ""]
        pages[f"{REFERENCE}/{package}.md"] = "\n".join(lines)
    return pages


class _Faults(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        known = dict(attrs)
        if tag not in ELEMENTS | LOADED.keys():
            self.found.append(f"<{tag}> is hidden by browsers: write it as code")
        address = known.get(LOADED.get(tag, "")) or ""
        if ELSEWHERE.match(address) and known.get("rel") not in NAMING:
            self.found.append(loads(address))
        self.found += elsewhere_in_styles(known.get("style") or "")
        if tag == "pre" and "mermaid" in (known.get("class") or ""):
            self.found.append(loads("mermaid"))


def loads(address: str) -> str:
    """Return the sentence on an address that a page would load."""
    return f"{address} would be loaded from elsewhere: the site needs no network"


def elsewhere_in_styles(css: str) -> list[str]:
    """Return a sentence for each address that a style sheet loads from elsewhere."""
    return [
        loads(address)
        for address in re.findall(r"(?:url\(|@import)\s*[\"']?((?:https?:)?//[^\"')\s]+)", css, re.IGNORECASE)
    ]


def faults(page: str) -> list[str]:
    """Return what is wrong with a page: what it would load from outside of the site, and text that would not be seen."""
    parser = _Faults()
    parser.feed(page)
    return parser.found


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Add the reference to the navigation."""
    pages = [{path.removeprefix(f"{REFERENCE}/").removesuffix(".md"): path} for path in reference(ROOT / "src")]
    config.nav.append({"API reference": pages})
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Put the repository's pages and the reference in the place of docs/ alone."""
    from mkdocs.structure.files import File

    for file in [file for file in files if file.src_dir == config.docs_dir]:
        files.remove(file)
    pages = tree(ROOT)
    for path, listed in pages.items():
        own = listed is None and path.endswith(".md")
        content = to_pages((ROOT / path).read_text("utf-8"), path, pages) if own else listed
        source = {"abs_src_path": str(ROOT / path)} if content is None else {"content": content}
        files.append(File.generated(config, path, **source))
    for path, content in reference(ROOT / "src").items():
        files.append(File.generated(config, path, content=content))
    return files


def on_post_build(config: MkDocsConfig) -> None:
    """Refuse a site that would load anything from elsewhere or hide some of its text."""
    from mkdocs.exceptions import PluginError

    for file in sorted(Path(config.site_dir).rglob("*")):
        if file.suffix not in (".html", ".css"):
            continue
        text = file.read_text("utf-8")
        found = faults(text) if file.suffix == ".html" else elsewhere_in_styles(text)
        if found:
            raise PluginError(f"In {file.relative_to(config.site_dir)}: {found[0]}.")
