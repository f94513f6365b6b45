"""How Sphinx renders the site; Markdown by MyST, the theme Furo, nothing from another machine."""

from importlib.metadata import version as installed

project = "Tunesmith"
author = "the authors of Tunesmith"
version = release = installed("tunesmith")
html_title = f"Tunesmith {version}"
extensions = ["myst_parser"]
myst_heading_anchors = 4
#: Files that a page leads to, and shell and TOML blocks without a language.
highlight_language = "text"
myst_links_external_new_tab = False
suppress_warnings = ["misc.highlighting_failure"]
html_static_path = ["static"]
html_css_files = ["site.css"]
html_theme = "furo"
html_show_sphinx = False
html_copy_source = False
html_show_sourcelink = False
html_theme_options = {"footer_icons": [], "top_of_page_buttons": []}
# summaries would be fetched page by page, which browsers forbid to a site that lies on a disk
html_show_search_summary = False
