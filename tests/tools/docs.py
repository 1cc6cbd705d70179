"""A preprocessor of mdBook for docs/. It fails if a page is not in SUMMARY.md, or if a link of any Markdown file of the
repository leads to a file or a heading that does not exist.

- Links that leave docs/ become links to the repository: at the URL in REPOSITORY, or to the files of this checkout.
- `<!-- include FILES -->` becomes these files, each in a block of code.
- The pages in docs/runbooks/ are added to the contents by themselves, because each alert brings one.
"""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
RUNBOOKS = DOCS / "runbooks"
CODE_BLOCK = re.compile(r"^(```+).*?^\1", re.MULTILINE | re.DOTALL)
CODE = re.compile(CODE_BLOCK.pattern + r"|`[^`\n]+`", CODE_BLOCK.flags)
LINK = re.compile(r"(\]\()([^)\s#]*)(#[^)\s]*)?(\))")
INCLUDE = re.compile(r"^<!-- include (\S+) -->$", re.MULTILINE)
REMOTE = re.compile(r"[a-z]+:|//")
# GitHub shows README.md for a folder, a site index.html.
README = re.compile(r"(^|[(/])README\.md")


def git(*arguments):
    return subprocess.run(["git", "-C", ROOT, *arguments], check=True, capture_output=True, text=True).stdout


def url(target):
    repository = os.environ.get("REPOSITORY")
    path = target.relative_to(ROOT).as_posix()
    if not repository:
        return target.as_uri()
    return f"{repository.rstrip('/')}/blob/{git('rev-parse', 'HEAD').strip()}/{path}"


def anchors(page):
    """The anchors that GitHub gives to the headings of a page."""
    headings = re.findall(r"^#+ (.*)", CODE_BLOCK.sub("", page.read_text()), re.MULTILINE)
    return {"#" + re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def each_link(text, page, problems, replace=lambda link, target: link[0]):
    """Calls `replace` for each link of a page to a file that exists."""

    def one(link):
        if REMOTE.match(link[2]):
            return link[0]
        target = Path(os.path.normpath(page.parent / link[2])) if link[2] else page
        if not target.is_relative_to(ROOT) or not target.exists():
            problems.append(f"{page.relative_to(ROOT)}: {link[2]} does not exist")
            return link[0]
        if link[3] and target.suffix == ".md" and link[3] not in anchors(target):
            problems.append(f"{page.relative_to(ROOT)}: {link[2]} has no heading {link[3]}")
        return replace(link, target)

    parts, end = [], 0
    for code in CODE.finditer(text):
        parts += [LINK.sub(one, text[end : code.start()]), code[0]]
        end = code.end()
    return "".join(parts) + LINK.sub(one, text[end:])


def include(text, page, problems):
    def one(match):
        files = sorted(page.parent.glob(match[1]))
        if not files:
            problems.append(f"{page.relative_to(ROOT)}: there is no {match[1]}")
        blocks = [f"```{file.suffix[1:]}\n{file.read_text()}```\n" for file in files]
        if len(files) == 1:
            return blocks[0]
        return "\n".join(f"## {file.name}\n\n{block}" for file, block in zip(files, blocks))

    return INCLUDE.sub(one, text)


def to_site(link, target):
    if target.is_relative_to(DOCS):
        return README.sub(r"\1index.md", link[0])
    return link[1] + url(target) + (link[3] or "") + link[4]


def chapter(path, parents=(), sub_items=()):
    text = path.read_text()
    page = path.relative_to(DOCS).as_posix()
    return {
        "Chapter": {
            "name": re.search(r"^# (.*)", text, re.MULTILINE)[1],
            "content": text,
            "number": None,
            "sub_items": list(sub_items),
            "path": page,
            "source_path": page,
            "parent_names": list(parents),
        }
    }


def runbooks():
    overview = chapter(RUNBOOKS / "README.md")
    name = overview["Chapter"]["name"]
    pages = sorted(page for page in RUNBOOKS.glob("*.md") if page.name != "README.md")
    overview["Chapter"]["sub_items"] = [chapter(page, [name]) for page in pages]
    return [{"PartTitle": "On call"}, overview]


def chapters(items):
    for item in items:
        if isinstance(item, dict) and "Chapter" in item:
            yield item["Chapter"]
            yield from chapters(item["Chapter"]["sub_items"])


def main():
    if sys.argv[1:2] == ["supports"]:
        return
    _, book = json.load(sys.stdin)
    problems = []
    if RUNBOOKS.exists():
        book["items"] += runbooks()
    for page in chapters(book["items"]):
        page["path"] = README.sub(r"\1index.md", page["path"])
        source = DOCS / page["source_path"]
        content = each_link(page["content"], source, problems, to_site)
        page["content"] = include(content, source, problems)

    listed = {page["source_path"] for page in chapters(book["items"])}
    for page in sorted(DOCS.rglob("*.md")):
        name = page.relative_to(DOCS).as_posix()
        if name not in listed | {"SUMMARY.md"}:
            problems.append(f"docs/{name}: is not in docs/SUMMARY.md")
    # The other documents of the repository are not on the site, but their links should lead somewhere too.
    for name in git("ls-files", "*.md").split():
        page = ROOT / name
        if not page.is_relative_to(DOCS) and page.exists():
            each_link(page.read_text(), page, problems)

    if problems:
        sys.exit("\n".join(problems))
    json.dump(book, sys.stdout)


main()
