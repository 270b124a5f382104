"""A hook of mkdocs: links to benchmarks/README.md lead to the page that includes it."""


def on_page_markdown(markdown: str, **_: object) -> str:
    """Return the text of a page with these links changed."""
    return markdown.replace("../benchmarks/README.md", "benchmarks.md")
