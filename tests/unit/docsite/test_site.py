"""The tree that the site is built from, and what is looked for in the built one."""

from pathlib import Path

from docsite import built, tree


def test_every_page_of_the_docs_has_its_place_in_the_site() -> None:
    named = [page for pages in tree.parts(tree.INDEX.read_text()).values() for page in pages]
    there = {str(path.relative_to(tree.INDEX.parent)) for path in tree.INDEX.parent.rglob("*.md")} - {"index.md"}
    assert {page for page in named if not page.startswith("../")} == there
    assert len(named) == len(set(named))


def test_the_tree_has_the_pages_the_reference_and_all_that_they_lead_to(tmp_path: Path) -> None:
    tree.write(tmp_path / "tree", {name: f"# {name}\n" for name in tree.REFERENCE})
    front = (tmp_path / "tree" / "index.md").read_text()
    assert "(docs/quickstart.md)" in front
    assert "(CONTRIBUTING.md)" in front
    assert front.count("```{toctree}") == 4
    assert "\nreference/http/index\n" in front
    for name in ("docs/howto/steer.md", "reference/errors.md", "benchmarks/README.md", "deploy/grafana.json"):
        assert (tmp_path / "tree" / name).is_file(), name


def test_a_built_site_with_a_dead_link_or_a_script_from_elsewhere_is_told(tmp_path: Path) -> None:
    (tmp_path / "a.html").write_text(
        '<p id="here"></p><a href="#here">1</a><a href="b.html#there">2</a><a href="b.html#gone">3</a><a href="c.html">4</a>'
        '<a href="https://example.com/">5</a><script src="https://example.com/x.js"></script><link rel="icon" href="x.png">'
    )
    (tmp_path / "b.html").write_text('<p id="there"></p>')
    assert built.faults(tmp_path) == [
        "a.html: fetches https://example.com/x.js",
        "a.html: leads to b.html#gone, a place that is not there",
        "a.html: leads to c.html, which is not there",
    ]
